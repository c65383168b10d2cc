# SPDX-License-Identifier: Apache-2.0
#
# nibble_cuda_compile(FILE.cu...) compiles each file, a "module", for each target to PTX and to
# machine code; nibble_cuda_table(NAME [ALL_PTX] FILE.cu...) makes the object library NAME of the
# images of some of them and of the table that lists them (kernels-cuda/common/modules.h). Without
# ALL_PTX it has the machine code for all targets but PTX for sm_89 alone, which newer GPUs
# compile; the rest is for the emulator, and several times larger than the machine code.
#
# The file's first ten lines may hold
#   // targets: 80 89 120      compile it for these alone (default: all of NIBBLE_CUDA_TARGETS)
# A family that needs more sets properties on the source file before the call:
#   NIBBLE_CUDA_OPTIONS    further options of nvcc
#   NIBBLE_CUDA_SKIP       true: the file is left out, as where a library that it needs is missing
#   NIBBLE_CUDA_POOL       Ninja's job pool, for files that take gigabytes to compile
# The directory property NIBBLE_CUDA_REPORTS lists what ptxas said of each.

# 80: Ampere (and, at run time, 86 and 87), 89: Ada; 90 and 120 stand for sm_90a (Hopper) and
# sm_120a (Blackwell, GeForce), whose own instructions no other generation runs.
set(NIBBLE_CUDA_TARGETS "80;89;90;120" CACHE STRING "GPU generations to build kernels for")

function(nibble_cuda_arch target arch)
  if(target GREATER_EQUAL 90)
    set(${arch} ${target}a PARENT_SCOPE)
  else()
    set(${arch} ${target} PARENT_SCOPE)
  endif()
endfunction()

# The targets of one module, from its first lines.
function(nibble_cuda_module_targets source targets)
  file(STRINGS ${source} lines LIMIT_COUNT 10)
  set(chosen 80 89 90 120)
  foreach(line IN LISTS lines)
    if(line MATCHES "^// targets:([ 0-9]+)$")
      string(REGEX MATCHALL "[0-9]+" chosen "${CMAKE_MATCH_1}")
    endif()
  endforeach()
  set(both "")
  foreach(target IN LISTS chosen)
    if(NOT target MATCHES "^(80|89|90|120)$")
      message(FATAL_ERROR "${source}: target ${target}, but 80, 89, 90 or 120 was expected")
    endif()
    if(target IN_LIST NIBBLE_CUDA_TARGETS)
      list(APPEND both ${target})
    endif()
  endforeach()
  set(${targets} ${both} PARENT_SCOPE)
endfunction()

set(nibble_cuda_image_dir ${CMAKE_CURRENT_BINARY_DIR}/modules)

function(nibble_cuda_compile)
  file(MAKE_DIRECTORY ${nibble_cuda_image_dir})
  set(seen "")
  # -O3 is nvcc's default; constexpr functions of the CPU's headers may be called in kernels.
  set(options -ptx -std=c++17 -O3 --expt-relaxed-constexpr -I${PROJECT_SOURCE_DIR})
  if(NIBBLE_WARNINGS_AS_ERRORS)
    list(APPEND options -Werror all-warnings)
  endif()
  foreach(source IN LISTS ARGN)
    # For the line of its targets.
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${source})
    get_source_file_property(skip ${source} NIBBLE_CUDA_SKIP)
    get_source_file_property(more ${source} NIBBLE_CUDA_OPTIONS)
    get_source_file_property(pool ${source} NIBBLE_CUDA_POOL)
    if(skip)
      continue()
    endif()
    get_filename_component(module ${source} NAME_WE)
    if(module IN_LIST seen)
      message(FATAL_ERROR "${source}: another module has this name")
    endif()
    list(APPEND seen ${module})
    if(NOT more)
      set(more "")
    endif()
    set(in_pool "")
    if(pool)
      set(in_pool JOB_POOL ${pool})
    endif()
    nibble_cuda_module_targets(${source} targets)
    foreach(target IN LISTS targets)
      nibble_cuda_arch(${target} arch)
      set(image ${nibble_cuda_image_dir}/${module}.sm_${arch})
      add_custom_command(OUTPUT ${image}.ptx
        COMMAND ${NIBBLE_NVCC} ${options} ${more} -arch=compute_${arch}
                -MD -MF ${image}.d -o ${image}.ptx ${source}
        DEPENDS ${source} DEPFILE ${image}.d ${in_pool}
        COMMENT "Compiling ${module}.cu for sm_${arch}" VERBATIM)
      add_custom_command(OUTPUT ${image}.cubin ${image}.txt
        COMMAND ${CMAKE_COMMAND} -D PTXAS=${NIBBLE_PTXAS} -D ARCH=sm_${arch} -D IMAGE=${image}
                -P ${PROJECT_SOURCE_DIR}/cmake/CudaAssemble.cmake
        DEPENDS ${image}.ptx ${PROJECT_SOURCE_DIR}/cmake/CudaAssemble.cmake ${in_pool}
        COMMENT "Assembling ${module}.cu for sm_${arch}" VERBATIM)
    endforeach()
  endforeach()
endfunction()

function(nibble_cuda_table name)
  cmake_parse_arguments(PARSE_ARGV 1 table "ALL_PTX" "" "")
  set(images "")
  set(reports "")
  set(NIBBLE_BLOBS "")
  set(NIBBLE_ROWS "")
  foreach(source IN LISTS table_UNPARSED_ARGUMENTS)
    get_source_file_property(skip ${source} NIBBLE_CUDA_SKIP)
    if(skip)
      continue()
    endif()
    get_filename_component(module ${source} NAME_WE)
    nibble_cuda_module_targets(${source} targets)
    foreach(target IN LISTS targets)
      nibble_cuda_arch(${target} arch)
      set(image ${nibble_cuda_image_dir}/${module}.sm_${arch})
      list(APPEND images ${image}.ptx ${image}.cubin)
      list(APPEND reports ${image}.txt)
      set(symbol ${module}_${target})
      string(APPEND NIBBLE_BLOBS "NIBBLE_BLOB(cubin_${symbol}, \"${image}.cubin\")\n")
      if(target EQUAL 89 OR table_ALL_PTX)
        string(APPEND NIBBLE_BLOBS "NIBBLE_BLOB(ptx_${symbol}, \"${image}.ptx\")\n")
        string(APPEND NIBBLE_ROWS "    NIBBLE_ROW(${module}, ${target}, nibble_ptx_${symbol}),\n")
      else()
        string(APPEND NIBBLE_ROWS "    NIBBLE_ROW(${module}, ${target}, nullptr),\n")
      endif()
    endforeach()
  endforeach()
  # The images are read by the assembler when this file is compiled.
  set(table ${CMAKE_CURRENT_BINARY_DIR}/${name}.cc)
  configure_file(${PROJECT_SOURCE_DIR}/cmake/CudaModules.cc.in ${table} @ONLY)
  set_property(SOURCE ${table} PROPERTY OBJECT_DEPENDS "${images}")
  add_library(${name} OBJECT ${table} ${images})
  target_link_libraries(${name} PUBLIC nibble_settings nibble_cuda_headers)
  set_property(DIRECTORY PROPERTY NIBBLE_CUDA_REPORTS "${reports}")
endfunction()
