# xgrammar, the grammar engine of guided output: fathom::xgrammar, a static library of its own. Its sources are no part of this
# repository: deploy/fetch-xgrammar puts them into build/, or FATHOM_XGRAMMAR_SOURCE names a folder. The options of its own
# CMakeLists.txt (LTO, -Werror, Python) are not used. The sanitized builds are without it, unless FATHOM_GUIDED is ON.
set(FATHOM_GUIDED AUTO CACHE STRING "Guided output (xgrammar): AUTO (when its sources are there), ON or OFF")
set_property(CACHE FATHOM_GUIDED PROPERTY STRINGS AUTO ON OFF)
set(FATHOM_XGRAMMAR_SOURCE "" CACHE PATH "Folder of xgrammar's sources; default: what deploy/fetch-xgrammar fetched")
set(xgrammar ${FATHOM_XGRAMMAR_SOURCE})
if(NOT xgrammar)
  set(xgrammar ${PROJECT_SOURCE_DIR}/build/xgrammar-0.2.9)
endif()
set(FATHOM_HAVE_GUIDED OFF)
if(FATHOM_GUIDED STREQUAL ON OR (FATHOM_GUIDED STREQUAL AUTO AND NOT FATHOM_SANITIZE))
  if(EXISTS ${xgrammar}/include/xgrammar/xgrammar.h)
    set(FATHOM_HAVE_GUIDED ON)
  elseif(FATHOM_GUIDED STREQUAL ON)
    message(FATAL_ERROR "FATHOM_GUIDED=ON but ${xgrammar} has no sources of xgrammar; run deploy/fetch-xgrammar, set "
                        "FATHOM_XGRAMMAR_SOURCE, or use FATHOM_GUIDED=OFF")
  endif()
endif()
message(STATUS "Fathom: guided output ${FATHOM_HAVE_GUIDED}")
if(FATHOM_HAVE_GUIDED)
  file(GLOB_RECURSE xgrammar_sources ${xgrammar}/cpp/*.cc)
  list(FILTER xgrammar_sources EXCLUDE REGEX "/cpp/tvm_ffi/")
  add_library(fathom_xgrammar STATIC ${xgrammar_sources})
  set_target_properties(fathom_xgrammar PROPERTIES CXX_STANDARD 17 UNITY_BUILD OFF INTERPROCEDURAL_OPTIMIZATION OFF)
  target_compile_options(fathom_xgrammar PRIVATE -w -O2)
  # Its log goes through two functions of text/guided/grammar_engine.cc.
  target_compile_definitions(fathom_xgrammar PRIVATE XGRAMMAR_ENABLE_CPPTRACE=0 XGRAMMAR_ENABLE_INTERNAL_CHECK=0
    XGRAMMAR_LOG_CUSTOMIZE=1)
  target_include_directories(fathom_xgrammar SYSTEM PUBLIC ${xgrammar}/include ${xgrammar}/3rdparty/dlpack/include
    PRIVATE ${xgrammar}/3rdparty/picojson)
  target_link_libraries(fathom_xgrammar PUBLIC Threads::Threads)
  add_library(fathom::xgrammar ALIAS fathom_xgrammar)
endif()
