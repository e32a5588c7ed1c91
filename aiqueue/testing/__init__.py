"""What tests, benchmarks and load tests run against instead of the real thing: fakes, not mocks."""
