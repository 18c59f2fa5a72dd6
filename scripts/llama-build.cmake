# What this project leaves out of llama.cpp. CMake reads it at the end of llama-cpp-python's own
# project() line (-DCMAKE_PROJECT_llama_cpp_INCLUDE=<this file>), before the options there are set.
# A cache entry set here is only a default: the same name given with -D wins.

# Images and audio: a text gateway never loads that library.
set(LLAVA_BUILD OFF CACHE BOOL "llama-cpp-python: build the multimodal library")

# Each context computes on one thread of its own, so a thread pool per operation has no use here,
# and the image needs no libgomp.
set(GGML_OPENMP OFF CACHE BOOL "ggml: use OpenMP")

# Forty thousand lines of compiler warnings would bury the one line that says why a build failed.
set(GGML_ALL_WARNINGS OFF CACHE BOOL "ggml: enable all compiler warnings")
set(LLAMA_ALL_WARNINGS OFF CACHE BOOL "llama: enable all compiler warnings")

# Libraries and headers beside the Python package, not in a bare lib/ and include/ next to it.
set(CMAKE_INSTALL_LIBDIR llama_cpp/lib CACHE PATH "libraries, below site-packages")
set(CMAKE_INSTALL_BINDIR llama_cpp/lib CACHE PATH "programs, below site-packages")
set(CMAKE_INSTALL_INCLUDEDIR llama_cpp/include CACHE PATH "headers, below site-packages")

# llama.cpp's own helper library, which only its programs use. llama-cpp-python forces the cache
# entry to ON; a normal variable of the same name shadows it (CMP0126 and CMP0077, both NEW here).
set(LLAMA_BUILD_COMMON OFF)

# A wheel cannot hold symbolic links: libggml.so, libggml.so.0 and libggml.so.0.25 would be three
# copies, of which a process then loads two, each with a log callback and a backend list of its own.
if(NOT APPLE)
  set(CMAKE_PLATFORM_NO_VERSIONED_SONAME ON)
endif()

# GCC before 14 drops the stores that fill an AMX tile configuration (its _tile_loadconfig says it
# reads 8 of the 64 bytes), and the first matrix product then faults on a CPU that has AMX. AVX-512
# serves texts of this size as well.
if(CMAKE_C_COMPILER_ID STREQUAL "GNU" AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  if(CMAKE_C_COMPILER_VERSION VERSION_GREATER_EQUAL 11 AND CMAKE_C_COMPILER_VERSION VERSION_LESS 14)
    add_compile_options(-mno-amx-tile -mno-amx-int8 -mno-amx-bf16)
  endif()
endif()
