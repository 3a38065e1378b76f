# Compiler settings of every target of Opsin. Called as functions, not set globally, so that a project
# which adds Opsin as a subdirectory keeps its own.

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(OPSIN_ISAS baseline avx2 avx512)
  # Levels for which only what gains from them is compiled, files named *_<level>.cpp.
  set(OPSIN_ISA_EXTRAS avx512_bf16 amx_bf16)
else()
  set(OPSIN_ISAS baseline)
  set(OPSIN_ISA_EXTRAS "")
endif()
set(OPSIN_OBJECT_TARGETS ${OPSIN_ISAS} ${OPSIN_ISA_EXTRAS})
list(TRANSFORM OPSIN_OBJECT_TARGETS PREPEND opsin_isa_)
list(PREPEND OPSIN_OBJECT_TARGETS opsin_objects)
set(OPSIN_ISA_FLAGS_baseline "")
set(OPSIN_ISA_FLAGS_avx2 -mavx2 -mfma -mf16c -mbmi2)
set(OPSIN_ISA_FLAGS_avx512 ${OPSIN_ISA_FLAGS_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl
    -mprefer-vector-width=512)
set(OPSIN_ISA_FLAGS_avx512_bf16 ${OPSIN_ISA_FLAGS_avx512} -mavx512bf16)
set(OPSIN_ISA_FLAGS_amx_bf16 ${OPSIN_ISA_FLAGS_avx512_bf16} -mamx-tile -mamx-bf16)

function(opsin_compile_settings target)
  target_compile_features(${target} PRIVATE cxx_std_20)
  set_target_properties(
    ${target}
    PROPERTIES CXX_EXTENSIONS OFF
               CXX_VISIBILITY_PRESET hidden
               VISIBILITY_INLINES_HIDDEN ON
               POSITION_INDEPENDENT_CODE ON)
  # CUDA's diagnostic 186: one functor serves signed and unsigned integers, so some of its comparisons say
  # nothing for the latter.
  # Contraction is off outside the kernels: the same expression must round the same way in every file.
  set(warnings -Wall -Wextra -Wshadow)
  set(host_options -fno-math-errno -fno-trapping-math -fno-semantic-interposition -ffp-contract=off)
  if(OPSIN_WERROR)
    list(APPEND warnings -Werror)
  endif()
  list(JOIN warnings "," host_warnings)
  list(JOIN host_options "," cuda_host_options)
  target_compile_options(
    ${target}
    PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:${warnings};${host_options}>"
            "$<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr;--compress-mode=size;-Xcompiler=${host_warnings},${cuda_host_options};-Xcudafe;--display_error_number;--diag-suppress=186;$<$<BOOL:${OPSIN_WERROR}>:--Werror=all-warnings>>")
  if(OPSIN_SANITIZE)
    list(JOIN OPSIN_SANITIZE "," sanitizers)
    # GCC's flow analysis finds overflows and unset variables in instrumented code where there are none.
    target_compile_options(
      ${target}
      PRIVATE -fsanitize=${sanitizers} -fno-sanitize-recover=all -fno-omit-frame-pointer -Wno-array-bounds
              -Wno-stringop-overflow -Wno-stringop-overread -Wno-restrict -Wno-maybe-uninitialized)
    target_link_options(${target} PUBLIC $<BUILD_INTERFACE:-fsanitize=${sanitizers}>)
  endif()
endfunction()
