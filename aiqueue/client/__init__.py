"""The client: what programs use to submit jobs and to wait for them."""
