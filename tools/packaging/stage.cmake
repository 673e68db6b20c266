# SPDX-License-Identifier: Apache-2.0
#
# Run by CPack when the files of all components stand in their trees, before the packages are built:
# adds what Debian wants of each. Everything made here is the same bytes from one build to the next.
set(source ${CPACK_SHMQ_SOURCE_DIR})

function(run)
  execute_process(COMMAND ${ARGV} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

foreach(package ${CPACK_COMPONENTS_ALL})
  set(tree ${CPACK_TEMPORARY_DIRECTORY}/${package})
  set(doc ${tree}/usr/share/doc/${package})
  file(MAKE_DIRECTORY ${doc})
  configure_file(${source}/tools/packaging/copyright ${doc}/copyright COPYONLY)
  configure_file(${source}/CHANGELOG.md ${doc}/changelog COPYONLY)
  configure_file(${source}/tools/packaging/changelog ${doc}/changelog.Debian COPYONLY)
  run(gzip -9nf ${doc}/changelog ${doc}/changelog.Debian)
  file(GLOB pages ${tree}/usr/share/man/man*/*.[1-8])
  if(pages)
    run(gzip -9nf ${pages})
  endif()
  file(GLOB programs ${tree}/usr/bin/* ${tree}/usr/sbin/* ${tree}/usr/lib/*/*.so.*.*)
  if(programs)
    run(strip --strip-unneeded --remove-section=.comment --remove-section=.note ${programs})
  endif()
  if(EXISTS ${source}/tools/packaging/lintian/${package})
    file(MAKE_DIRECTORY ${tree}/usr/share/lintian/overrides)
    configure_file(${source}/tools/packaging/lintian/${package}
      ${tree}/usr/share/lintian/overrides/${package} COPYONLY)
  endif()
endforeach()
