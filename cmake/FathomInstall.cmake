# cmake --install build/release --component programs|models [--strip] --prefix DIR
#   programs: DIR/bin, the five programs that find each other beside `fathom`, and the licence
#   models:   DIR/share/fathom/models, the bundled models
# The programs link the distribution's shared libraries (deploy/image/build.sh runtime-packages names their packages).
include(GNUInstallDirs)
install(TARGETS fathom fathom-router fathom-scheduler fathom-worker fathom-replay
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT programs)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT programs)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/models/fathom-tiny ${PROJECT_SOURCE_DIR}/models/fathom-tiny-draft
  DESTINATION ${CMAKE_INSTALL_DATADIR}/fathom/models COMPONENT models)
install(FILES ${PROJECT_SOURCE_DIR}/models/README.md DESTINATION ${CMAKE_INSTALL_DATADIR}/fathom/models COMPONENT models)
