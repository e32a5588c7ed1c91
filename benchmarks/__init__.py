"""Speed, measured: ``make bench``. Every figure comes with the floor it must keep and what the fastest peer reaches."""
