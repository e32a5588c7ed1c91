# CMake includes this right after llama.cpp's own project() call (CMAKE_PROJECT_llama.cpp_INCLUDE).
#
# llama-cpp-python's CMakeLists forces LLAMA_BUILD_COMMON on, with FORCE, so a -D on the command line is overwritten. A
# normal variable hides a cache variable, and this is the one place from which it can be set. "common" is what the
# command line tools of llama.cpp share; the Python bindings load libllama and ggml only. Without it, without the image
# library and as a unity build, the wheel takes about a minute and a half on 2 cores instead of five and a half.
set(LLAMA_BUILD_COMMON OFF)
