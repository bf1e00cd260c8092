# bring-up: while the folders are being filled, sources that are not there yet are left out.
function(fathom_present var)
  set(found)
  foreach(src ${${var}})
    if(IS_ABSOLUTE ${src} OR EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${src} OR ${src} MATCHES "^[$]")
      list(APPEND found ${src})
    else()
      message(STATUS "bring-up: ${CMAKE_CURRENT_SOURCE_DIR}/${src} is not there yet")
    endif()
  endforeach()
  set(${var} "${found}" PARENT_SCOPE)
endfunction()

# fathom_library(NAME name SRCS ... [DEPS ...] [PRIVATE_DEPS ...] [COPTS ...])
#   A static library fathom_<name> with the alias fathom::<name>. DEPS is the dependency rule: what is not
#   linked is not included. Without SRCS it is header-only (INTERFACE).
function(fathom_library)
  cmake_parse_arguments(A "" "NAME" "SRCS;DEPS;PRIVATE_DEPS;COPTS" ${ARGN})
  fathom_present(A_SRCS)  # bring-up
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

# fathom_binary(NAME fathom-router SRCS ... DEPS ...): a program in build/<preset>/bin.
function(fathom_binary)
  cmake_parse_arguments(A "" "NAME" "SRCS;DEPS" ${ARGN})
  set(wanted "${A_SRCS}")   # bring-up
  fathom_present(A_SRCS)    # bring-up
  if(NOT "${wanted}" STREQUAL "${A_SRCS}")
    return()
  endif()
  foreach(dep ${A_DEPS})    # bring-up
    if(dep MATCHES "::" AND NOT TARGET ${dep})
      message(STATUS "bring-up: ${A_NAME} waits for ${dep}")
      return()
    endif()
  endforeach()
  add_executable(${A_NAME} ${A_SRCS})
  target_include_directories(${A_NAME} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_options(${A_NAME} PRIVATE ${FATHOM_WARNINGS})
  target_link_libraries(${A_NAME} PRIVATE ${A_DEPS})
endfunction()

# fathom_test(NAME name SRCS ... DEPS ... [LABELS ...] [TIMEOUT s] [ARGS ...])
#   A GoogleTest program, one ctest entry. Labels: `pure` runs under the sanitizers in every run, `threads`
#   under TSan too; `e2e` needs the binaries.
function(fathom_test)
  cmake_parse_arguments(A "" "NAME;TIMEOUT" "SRCS;DEPS;LABELS;ARGS" ${ARGN})
  if(NOT FATHOM_TESTS)
    return()
  endif()
  set(wanted "${A_SRCS}")   # bring-up
  fathom_present(A_SRCS)    # bring-up
  if(NOT "${wanted}" STREQUAL "${A_SRCS}")
    return()
  endif()
  foreach(dep ${A_DEPS})    # bring-up
    if(dep MATCHES "::" AND NOT TARGET ${dep})
      message(STATUS "bring-up: ${A_NAME} waits for ${dep}")
      return()
    endif()
  endforeach()
  add_executable(${A_NAME} ${A_SRCS})
  target_include_directories(${A_NAME} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_options(${A_NAME} PRIVATE ${FATHOM_WARNINGS} -O1)
  target_compile_definitions(${A_NAME} PRIVATE FATHOM_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  target_link_libraries(${A_NAME} PRIVATE ${A_DEPS} GTest::gmock GTest::gtest_main)
  set_target_properties(${A_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${A_NAME} COMMAND ${A_NAME} ${A_ARGS} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 120)
  endif()
  set_tests_properties(${A_NAME} PROPERTIES LABELS "${A_LABELS}" TIMEOUT ${A_TIMEOUT})
endfunction()
