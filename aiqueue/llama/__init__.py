"""llama.cpp through llama-cpp-python: model files, the loaded model, what it logs."""
