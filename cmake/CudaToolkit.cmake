# SPDX-License-Identifier: Apache-2.0
#
# The CUDA compiler, as NIBBLE_CUDA asks for it: OFF (the default: compiling all kernels for all
# generations takes many minutes, and most machines have no use for them), AUTO (build the CUDA
# kernels where nvcc and ptxas are on the PATH) or ON (it is an error if they are not). Only the
# compiler and cuda.h are needed; neither a GPU nor a driver. Sets NIBBLE_CUDA_FOUND and, if true,
#   NIBBLE_NVCC, NIBBLE_PTXAS       the programs
#   NIBBLE_CUDA_VERSION             12.8 and so on
#   nibble_cuda_headers             an interface target with the directory of cuda.h

set(NIBBLE_CUDA OFF CACHE STRING "Build the CUDA kernels: OFF, AUTO or ON")
set_property(CACHE NIBBLE_CUDA PROPERTY STRINGS OFF AUTO ON)
set(NIBBLE_CUDA_FOUND FALSE)

# The first toolkit that knows sm_120a.
set(nibble_cuda_oldest 12.8)

# Fills NIBBLE_NVCC, NIBBLE_PTXAS, NIBBLE_CUDA_VERSION and NIBBLE_CUDA_INCLUDE_DIR; problem
# becomes "", or what is missing.
function(nibble_find_cuda problem)
  set(${problem} "" PARENT_SCOPE)
  find_program(NIBBLE_NVCC nvcc DOC "NVIDIA's CUDA compiler")
  find_program(NIBBLE_PTXAS ptxas DOC "NVIDIA's PTX assembler")
  if(NOT NIBBLE_NVCC OR NOT NIBBLE_PTXAS)
    set(${problem} "nvcc and ptxas are not both on the PATH" PARENT_SCOPE)
    return()
  endif()
  execute_process(COMMAND ${NIBBLE_NVCC} --version
    OUTPUT_VARIABLE says ERROR_VARIABLE says RESULT_VARIABLE failed)
  if(failed OR NOT says MATCHES "release ([0-9]+\\.[0-9]+)")
    set(${problem} "\"${NIBBLE_NVCC} --version\" failed" PARENT_SCOPE)
    return()
  endif()
  set(version ${CMAKE_MATCH_1})
  set(NIBBLE_CUDA_VERSION ${version} PARENT_SCOPE)
  if(version VERSION_LESS nibble_cuda_oldest)
    set(${problem} "nvcc is of CUDA ${version}, but ${nibble_cuda_oldest} or newer is needed"
      PARENT_SCOPE)
    return()
  endif()
  # nvcc may be a script that starts the real one elsewhere, so that its own path says nothing:
  # it is asked where it would look for headers. The file it would compile need not exist.
  execute_process(COMMAND ${NIBBLE_NVCC} --dryrun --cuda nibble.cu
    OUTPUT_VARIABLE says ERROR_VARIABLE says)
  string(REGEX MATCHALL "\"-I[^\"\n]+\"" directories "${says}")
  string(REGEX REPLACE "\"(-I)?" "" directories "${directories}")
  find_path(NIBBLE_CUDA_INCLUDE_DIR cuda.h HINTS ${directories} DOC "The directory of cuda.h")
  if(NOT NIBBLE_CUDA_INCLUDE_DIR)
    set(${problem} "no cuda.h where ${NIBBLE_NVCC} looks: set NIBBLE_CUDA_INCLUDE_DIR"
      PARENT_SCOPE)
  endif()
endfunction()

if(NIBBLE_CUDA STREQUAL "AUTO" AND CMAKE_CROSSCOMPILING)
  message(STATUS "CUDA: off, since this build is for another machine")
elseif(NIBBLE_CUDA STREQUAL "AUTO" AND NIBBLE_SANITIZE)
  # The emulator checks every access of a kernel itself, and would take minutes under a
  # sanitizer for what it does in seconds. NIBBLE_CUDA=ON builds the host code sanitized too.
  message(STATUS "CUDA: off, since this build is sanitized")
elseif(NIBBLE_CUDA)
  nibble_find_cuda(nibble_cuda_problem)
  if(nibble_cuda_problem STREQUAL "")
    set(NIBBLE_CUDA_FOUND TRUE)
    get_filename_component(nibble_cuda_include ${NIBBLE_CUDA_INCLUDE_DIR} REALPATH)
    add_library(nibble_cuda_headers INTERFACE)
    target_include_directories(nibble_cuda_headers SYSTEM INTERFACE ${nibble_cuda_include})
    message(STATUS "CUDA: toolkit ${NIBBLE_CUDA_VERSION}, ${nibble_cuda_include}")
  elseif(NIBBLE_CUDA STREQUAL "AUTO")
    message(STATUS "CUDA: off: ${nibble_cuda_problem}")
  else()
    message(FATAL_ERROR "NIBBLE_CUDA is ${NIBBLE_CUDA}, but ${nibble_cuda_problem}")
  endif()
endif()
