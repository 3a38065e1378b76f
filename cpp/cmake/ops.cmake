# opsin_add_isa_sources(FILE...): compiles each file once per instruction set, with
#   -DOPSIN_ISA_NS=<baseline|avx2|avx512>, the namespace the file must put all its symbols in
#   (check_isa_symbols.py refuses objects that do not).
# opsin_add_op(NAME): the one build line of an op. Takes every ops/NAME/*.cpp but *_cuda*.cpp, the
#   *_isa.cpp among them once per instruction set and *_<level>.cpp for that one, and lists
#   register_NAME() in the generated registration list, so that a static library loses no op.

function(opsin_add_isa_sources)
  foreach(source IN LISTS ARGN)
    cmake_path(ABSOLUTE_PATH source NORMALIZE)
    cmake_path(GET source FILENAME name)
    foreach(isa IN LISTS OPSIN_ISAS)
      target_sources(opsin_isa_${isa} PRIVATE "${source}")
    endforeach()
    if(name MATCHES "random")
      # Random numbers have the same bits on every instruction set and device.
      set_property(SOURCE "${source}" TARGET_DIRECTORY opsin_objects APPEND PROPERTY COMPILE_OPTIONS -ffp-contract=off)
    endif()
  endforeach()
endfunction()

# opsin_add_sources(FOLDER): the sources of one folder, those per instruction set included.
function(opsin_add_sources folder)
  cmake_path(ABSOLUTE_PATH folder NORMALIZE)
  file(GLOB sources CONFIGURE_DEPENDS "${folder}/*.cpp")
  set(isa_sources ${sources})
  list(FILTER isa_sources INCLUDE REGEX "_isa\\.cpp$")
  list(FILTER sources EXCLUDE REGEX "(_isa|_avx512_bf16|_amx_bf16|_cuda[^/]*)\\.cpp$")
  target_sources(opsin_objects PRIVATE ${sources})
  opsin_add_isa_sources(${isa_sources})
  foreach(isa IN LISTS OPSIN_ISA_EXTRAS)
    file(GLOB sources CONFIGURE_DEPENDS "${folder}/*_${isa}.cpp")
    target_sources(opsin_isa_${isa} PRIVATE ${sources})
  endforeach()
endfunction()

function(opsin_add_op name)
  opsin_add_sources("${CMAKE_CURRENT_SOURCE_DIR}/${name}")
  set_property(GLOBAL APPEND PROPERTY OPSIN_OPS ${name})
endfunction()

function(opsin_write_registration file)
  get_property(ops GLOBAL PROPERTY OPSIN_OPS)
  set(declarations "")
  set(calls "")
  foreach(op IN LISTS ops)
    string(APPEND declarations "void register_${op}(Registry& registry);\n")
    string(APPEND calls "  register_${op}(registry);\n")
  endforeach()
  file(CONFIGURE OUTPUT "${file}" @ONLY CONTENT
"// Written by opsin_add_op().
#include \"core/registry.h\"

namespace opsin {

@declarations@
void register_all_ops(Registry& registry);

void register_all_ops([[maybe_unused]] Registry& registry) {
@calls@}

}  // namespace opsin
")
  target_sources(opsin_objects PRIVATE "${file}")
endfunction()
