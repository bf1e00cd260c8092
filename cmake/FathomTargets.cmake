# fathom_library(NAME name SRCS ... [DEPS ...] [PRIVATE_DEPS ...] [COPTS ...] [COLD | ONCE])
#   A static library fathom_<name> with the alias fathom::<name>. DEPS is the dependency rule: a source may include only
#   what is linked. Without SRCS it is header-only (INTERFACE). COLD: no test computes for long in it, so the sanitized builds
#   compile it without optimization, which takes a third of the time. ONCE: in addition a process runs it only when it starts
#   or for an operator, so every build compiles it with -O1, which takes two thirds of the time.
function(fathom_library)
  cmake_parse_arguments(A "COLD;ONCE" "NAME" "SRCS;DEPS;PRIVATE_DEPS;COPTS" ${ARGN})
  if(FATHOM_SANITIZE AND (A_COLD OR A_ONCE))
    list(APPEND A_COPTS -O0)
  elseif(A_ONCE)
    list(APPEND A_COPTS -O1)
  endif()
  set(target fathom_${A_NAME})
  if(A_SRCS)
    add_library(${target} STATIC ${A_SRCS})
    target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR})
    target_compile_options(${target} PRIVATE ${FATHOM_WARNINGS} ${A_COPTS})
    target_link_libraries(${target} PUBLIC ${A_DEPS} PRIVATE ${A_PRIVATE_DEPS})
  else()
    add_library(${target} INTERFACE)
    target_include_directories(${target} INTERFACE ${PROJECT_SOURCE_DIR})
    target_link_libraries(${target} INTERFACE ${A_DEPS})
  endif()
  add_library(fathom::${A_NAME} ALIAS ${target})
endfunction()

# fathom_binary(NAME fathom-router SRCS ... DEPS ... [ONCE]): a program in build/<preset>/bin. ONCE is that of fathom_library.
function(fathom_binary)
  cmake_parse_arguments(A "ONCE" "NAME" "SRCS;DEPS" ${ARGN})
  add_executable(${A_NAME} ${A_SRCS})
  target_include_directories(${A_NAME} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_options(${A_NAME} PRIVATE ${FATHOM_WARNINGS} $<$<BOOL:${A_ONCE}>:-O1>)
  target_link_libraries(${A_NAME} PRIVATE ${A_DEPS})
endfunction()

# fathom_label_test(name TIMEOUT s LABELS ...): labels a test, and gives each of `pure` and `threads` a target
# <label>_tests that builds all of its programs and nothing else.
function(fathom_label_test name)
  cmake_parse_arguments(A "" "TIMEOUT" "LABELS" ${ARGN})
  foreach(label pure threads)
    if(label IN_LIST A_LABELS)
      if(NOT TARGET ${label}_tests)
        add_custom_target(${label}_tests)
      endif()
      add_dependencies(${label}_tests ${name})
    endif()
  endforeach()
  set_tests_properties(${name} PROPERTIES LABELS "${A_LABELS}" TIMEOUT ${A_TIMEOUT})
endfunction()

# The headers that nearly every test includes, parsed once for each build folder: GoogleTest and Abseil take longer to parse
# than most tests take to compile. A program with other compile options could not use them, so it is left out.
function(fathom_test_headers)
  file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/gen/test_headers.cc CONTENT "int main() { return 0; }\n")
  add_executable(test_headers ${CMAKE_BINARY_DIR}/gen/test_headers.cc)
  target_include_directories(test_headers PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_options(test_headers PRIVATE ${FATHOM_WARNINGS} -O0 -pthread)
  target_compile_definitions(test_headers PRIVATE FATHOM_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  target_link_libraries(test_headers PRIVATE fathom::base GTest::gmock GTest::gtest_main)
  target_precompile_headers(test_headers PRIVATE <gmock/gmock.h> <gtest/gtest.h> <absl/container/flat_hash_map.h>
    <absl/status/statusor.h> <fmt/format.h> <algorithm> <filesystem> <fstream> <functional> <map> <memory> <optional> <random>
    <set> <span> <string> <string_view> <thread> <variant> <vector>)
  set_target_properties(test_headers PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/gen)
endfunction()

# fathom_test(NAME name SRCS ... DEPS ... [LABELS ...] [TIMEOUT s] [ARGS ...] [HOT])
#   A GoogleTest program, one ctest entry. Labels: `pure` runs under ASan and UBSan in every run; it runs in the release
#   build only if it is also `exact` (its values depend on how the optimizer compiles the arithmetic). `threads` runs under
#   TSan. `e2e` needs the binaries. HOT: the program spends its time in its own sources, so these are optimized. The
#   sources of other tests are not, because compiling them takes longer than running them.
function(fathom_test)
  cmake_parse_arguments(A "HOT" "NAME;TIMEOUT" "SRCS;DEPS;LABELS;ARGS" ${ARGN})
  if(NOT FATHOM_TESTS OR (NOT FATHOM_PURE_TESTS AND "pure" IN_LIST A_LABELS AND NOT "exact" IN_LIST A_LABELS))
    return()
  endif()
  add_executable(${A_NAME} ${A_SRCS})
  target_include_directories(${A_NAME} PRIVATE ${PROJECT_SOURCE_DIR})
  set(optimization -O0)
  if(A_HOT)
    set(optimization -O1)
  else()
    if(NOT TARGET test_headers)
      fathom_test_headers()
    endif()
    target_precompile_headers(${A_NAME} REUSE_FROM test_headers)
    # A program with other macros (without fmt) parses the headers itself, which is slower but correct. -pthread is needed,
    # because gRPC adds it and clang refuses headers that were parsed without it.
    target_compile_options(${A_NAME} PRIVATE -pthread -Winvalid-pch -Wno-error=invalid-pch)
  endif()
  target_compile_options(${A_NAME} PRIVATE ${FATHOM_WARNINGS} ${optimization})
  target_compile_definitions(${A_NAME} PRIVATE FATHOM_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  target_link_libraries(${A_NAME} PRIVATE ${A_DEPS} GTest::gmock GTest::gtest_main)
  set_target_properties(${A_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${A_NAME} COMMAND ${A_NAME} ${A_ARGS} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 120)
  endif()
  fathom_label_test(${A_NAME} TIMEOUT ${A_TIMEOUT} LABELS ${A_LABELS})
endfunction()

# fathom_cuda_library(NAME name ARCH generic|sm_90a SRCS ... [DEPS ...]): a static library of .cu files. The host chooses
# between the files (PickConfig). wgmma and tensor maps have no forward-compatible PTX, so files that use them are built
# for sm_90a only; the others for sm_80 and sm_90, with PTX for later devices. FATHOM_CUDA_ONE_ARCH builds all of them for
# sm_90a only, as the tests do. The files are never joined into one source with FATHOM_UNITY (CMake does that since 3.31),
# because the code that nvcc makes of a kernel must not depend on that option.
function(fathom_cuda_library)
  cmake_parse_arguments(A "" "NAME;ARCH" "SRCS;DEPS" ${ARGN})
  if(NOT A_SRCS)
    return()
  endif()
  fathom_library(NAME ${A_NAME} SRCS ${A_SRCS} DEPS ${A_DEPS} CUDA::cudart_static)
  set(architectures 90a-real)
  if(A_ARCH STREQUAL "generic" AND NOT FATHOM_CUDA_ONE_ARCH)
    set(architectures 80-real 90-real 90-virtual)
  endif()
  set_target_properties(fathom_${A_NAME} PROPERTIES CUDA_ARCHITECTURES "${architectures}"
    CUDA_SEPARABLE_COMPILATION OFF UNITY_BUILD OFF)
endfunction()

# fathom_gpu_test(NAME name SRCS ... DEPS ...): a GoogleTest program that needs a GPU. It is part of the target
# gpu_programs. tests/gpu runs it on a GPU host; on other hosts it is not a test.
function(fathom_gpu_test)
  cmake_parse_arguments(A "" "NAME" "SRCS;DEPS" ${ARGN})
  if(NOT FATHOM_TESTS OR NOT FATHOM_HAVE_CUDA)
    return()
  endif()
  add_executable(${A_NAME} EXCLUDE_FROM_ALL ${A_SRCS})
  target_include_directories(${A_NAME} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${A_NAME} PRIVATE ${A_DEPS} CUDA::cudart_static GTest::gtest GTest::gtest_main)
  set_target_properties(${A_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/gpu
    CUDA_ARCHITECTURES 90a-real LINKER_LANGUAGE CXX UNITY_BUILD OFF)
  set_property(GLOBAL APPEND PROPERTY FATHOM_GPU_PROGRAMS ${A_NAME})
endfunction()

# fathom_gpu_program(NAME name SRCS ... DEPS ...): the same without GoogleTest: a benchmark or a tool.
function(fathom_gpu_program)
  cmake_parse_arguments(A "" "NAME" "SRCS;DEPS" ${ARGN})
  if(NOT FATHOM_TESTS OR NOT FATHOM_HAVE_CUDA)
    return()
  endif()
  add_executable(${A_NAME} EXCLUDE_FROM_ALL ${A_SRCS})
  target_include_directories(${A_NAME} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${A_NAME} PRIVATE ${A_DEPS} CUDA::cudart_static)
  set_target_properties(${A_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/gpu
    CUDA_ARCHITECTURES 90a-real LINKER_LANGUAGE CXX UNITY_BUILD OFF)
  set_property(GLOBAL APPEND PROPERTY FATHOM_GPU_PROGRAMS ${A_NAME})
endfunction()

# fathom_gpu_targets(): the target gpu_programs, and their names in gpu_programs.txt, for tests/gpu/bundle. Called last.
function(fathom_gpu_targets)
  get_property(programs GLOBAL PROPERTY FATHOM_GPU_PROGRAMS)
  add_custom_target(gpu_programs DEPENDS ${programs})
  list(JOIN programs "\n" lines)
  file(WRITE ${CMAKE_BINARY_DIR}/gpu_programs.txt "${lines}\n")
endfunction()
