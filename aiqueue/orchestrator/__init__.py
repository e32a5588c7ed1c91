"""Jobs that belong together, and jobs that come again: what is built on the queue's single jobs."""
