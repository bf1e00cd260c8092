# Compiler options of all our targets.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

# The arithmetic is canonical (docs/NUMERICS.md): no contraction of a*b+c, no reordering, ever.
add_compile_options($<$<COMPILE_LANGUAGE:C,CXX>:-ffp-contract=off>)
set(FATHOM_WERROR_FLAG)
if(FATHOM_WERROR)
  set(FATHOM_WERROR_FLAG -Werror)
endif()
set(FATHOM_WARNINGS -Wall -Wextra ${FATHOM_WERROR_FLAG} -Wshadow -Wnon-virtual-dtor -Wvla -Wimplicit-fallthrough -Wno-missing-field-initializers)
list(TRANSFORM FATHOM_WARNINGS REPLACE "(.+)" "$<$<COMPILE_LANGUAGE:C,CXX>:\\1>")

# From version 18 on clang spells constrained templates in another way than the g++ that built the system's Abseil.
if(CMAKE_CXX_COMPILER_ID STREQUAL Clang AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 18)
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fclang-abi-compat=17>)
endif()

# CMake's Release is -O3 -DNDEBUG; FATHOM_CHECK does not depend on NDEBUG.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -g1")
set(CMAKE_CXX_FLAGS_DEBUG "-O1 -g1")  # Tests themselves are compiled with -O0 (fathom_test).

set(CMAKE_UNITY_BUILD ${FATHOM_UNITY})
set(CMAKE_UNITY_BUILD_BATCH_SIZE 0)
if(FATHOM_UNITY)
  # It warns of anonymous types outside the main file; in a unity build every source is outside.
  add_compile_options($<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-subobject-linkage>)
endif()

if(FATHOM_SANITIZE)
  # Without it, Abseil's tables have another layout in sanitized code from 2023 on, and the system's library is not sanitized.
  add_compile_definitions(NDEBUG_SANITIZER)
  add_compile_options(-fsanitize=${FATHOM_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${FATHOM_SANITIZE})
  if(FATHOM_SANITIZE MATCHES undefined)
    add_compile_options(-fno-sanitize-recover=undefined)
    if(FATHOM_SANITIZE MATCHES address)
      # An access through a null pointer ends in ASan's report anyway, and these checks take a tenth of the compile time.
      add_compile_options(-fno-sanitize=null)
    endif()
  endif()
endif()

# mold links in 0.03 s, bfd in 0.4 s; a cached compile takes 0.01 s. Both tools are optional.
find_program(FATHOM_MOLD mold)
if(FATHOM_MOLD)
  add_link_options(-fuse-ld=mold)
endif()
find_program(FATHOM_CCACHE ccache)
if(FATHOM_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # One cache for all presets of this checkout; its paths are relative, so that presets share entries.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_DIR=${CMAKE_SOURCE_DIR}/build/ccache
      CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1 CCACHE_MAXSIZE=3G
      CCACHE_SLOPPINESS=pch_defines,time_macros ${FATHOM_CCACHE})
endif()
