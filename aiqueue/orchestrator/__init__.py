"""Many jobs as one, and jobs that come again. All of it is the queue's and survives its callers."""
