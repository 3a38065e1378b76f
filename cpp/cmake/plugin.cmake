# opsin_write_build_id(FILE): a header with the id that the core and its plug-ins must share: the version and a
#   hash of all headers, through which they speak to each other.
# opsin_add_plugin(TARGET REGISTRATION SOURCE...): a library that the core loads at run time. Every source
#   NAME_cuda.cu or NAME_cuda.cpp defines register_NAME_cuda(); the .cu ones are called first, so that vendor
#   libraries take the slots that they serve better.

function(opsin_write_build_id file)
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/cpp/include/*.h"
       "${PROJECT_SOURCE_DIR}/cpp/src/*.h")
  list(SORT headers)
  set(hashes "")
  foreach(header IN LISTS headers)
    file(SHA256 "${header}" hash)
    string(APPEND hashes "${hash}")
  endforeach()
  string(SHA256 hash "${hashes}")
  string(SUBSTRING "${hash}" 0 16 hash)
  file(CONFIGURE OUTPUT "${file}" CONTENT "// Written by CMake.\n#define OPSIN_BUILD_ID \"@PROJECT_VERSION@-@hash@\"\n" @ONLY)
endfunction()

function(opsin_add_plugin target registration)
  set(names "")
  foreach(suffix cu cpp)
    foreach(source IN LISTS ARGN)
      if(source MATCHES "/([a-z0-9_]+)_cuda\\.${suffix}$")
        list(APPEND names "${CMAKE_MATCH_1}")
      endif()
    endforeach()
  endforeach()
  set(declarations "")
  set(calls "")
  foreach(name IN LISTS names)
    string(APPEND declarations "void register_${name}_cuda();\n")
    string(APPEND calls "  register_${name}_cuda();\n")
  endforeach()
  file(CONFIGURE OUTPUT "${registration}" @ONLY CONTENT
"// Written by opsin_add_plugin().
namespace opsin {

@declarations@
namespace cuda {

void register_all();

void register_all() {
@calls@}

}  // namespace cuda

}  // namespace opsin
")
  add_library(${target} MODULE ${ARGN} "${registration}")
  opsin_compile_settings(${target})
  target_include_directories(${target} PRIVATE "${PROJECT_BINARY_DIR}/generated")
  target_include_directories(${target} PRIVATE "${PROJECT_SOURCE_DIR}/cpp/src")
  target_link_libraries(${target} PRIVATE opsin::opsin)
  # Beside the library that loads it, in the build folder and where it is installed.
  set_target_properties(${target} PROPERTIES LIBRARY_OUTPUT_DIRECTORY "$<TARGET_FILE_DIR:opsin>" BUILD_WITH_INSTALL_RPATH ON)
  target_link_options(${target} PRIVATE -Wl,-z,defs)
endfunction()
