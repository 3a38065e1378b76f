# cuDNN, cuBLASLt and NVRTC from NVIDIA's PyPI wheels: in the site-packages of the Python that builds, or
# under -DCUDA_WHEELS_ROOT=<folder that holds cu13/ and cudnn/>. Makes the imported targets
#   CudaWheels::cudnn  CudaWheels::cublasLt  CudaWheels::nvrtc
#
# The wheels have versioned names only (libcudnn.so.9), so the targets are full paths; the toolkit's own
# find modules know nothing of them.

# The one place of the cuDNN version: what is linked against the oldest supported release also runs with
# every later 9.x, and the reverse is not true.
set(OPSIN_CUDNN_MINIMUM 9.19)
set(OPSIN_CUDA_WHEELS nvidia-cudnn-cu13==9.19.0.56 nvidia-cublas==13.1.0.3 nvidia-cuda-nvrtc==13.0.88)

set(CUDA_WHEELS_ROOT "" CACHE PATH "The nvidia folder of a site-packages folder (default: the building Python's)")

# Refuses to go on and says what to do; `problem` is a sentence.
function(_opsin_cuda_wheels_missing problem)
  list(JOIN OPSIN_CUDA_WHEELS " " wheels)
  message(FATAL_ERROR
    "${problem}\n"
    "The CUDA plug-in needs NVIDIA's wheels:\n"
    "  python3 -m pip install --no-deps ${wheels}\n"
    "(or --target DIR, and -DCUDA_WHEELS_ROOT=DIR/nvidia; or configure with -DOPSIN_CUDA=OFF)")
endfunction()

set(_opsin_wheels_root "${CUDA_WHEELS_ROOT}")
if(NOT _opsin_wheels_root)
  find_package(Python REQUIRED COMPONENTS Interpreter)
  execute_process(
    COMMAND "${Python_EXECUTABLE}" -c
            "import importlib.util as u; s = u.find_spec('nvidia'); print(list(s.submodule_search_locations)[0] if s else '')"
    OUTPUT_VARIABLE _opsin_wheels_root OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(NOT _opsin_wheels_root)
    _opsin_cuda_wheels_missing("${Python_EXECUTABLE} has no package 'nvidia'.")
  endif()
endif()

function(_opsin_cuda_wheel target folder header library)
  set(include "${_opsin_wheels_root}/${folder}/include")
  set(location "${_opsin_wheels_root}/${folder}/lib/${library}")
  foreach(file "${include}/${header}" "${location}")
    if(NOT EXISTS "${file}")
      _opsin_cuda_wheels_missing("${file} does not exist.")
    endif()
  endforeach()
  if(NOT TARGET CudaWheels::${target})
    add_library(CudaWheels::${target} SHARED IMPORTED GLOBAL)
    set_target_properties(CudaWheels::${target} PROPERTIES IMPORTED_LOCATION "${location}"
                                                           INTERFACE_INCLUDE_DIRECTORIES "${include}")
  endif()
endfunction()

_opsin_cuda_wheel(cublasLt cu13 cublasLt.h libcublasLt.so.13)
_opsin_cuda_wheel(nvrtc cu13 nvrtc.h libnvrtc.so.13)
_opsin_cuda_wheel(cudnn cudnn cudnn_version.h libcudnn.so.9)

file(GLOB _opsin_cudnn_headers "${_opsin_wheels_root}/cudnn/include/cudnn_version*.h")
set(_opsin_cudnn_version "")
foreach(header IN LISTS _opsin_cudnn_headers)
  file(STRINGS "${header}" _opsin_cudnn_lines REGEX "^#define CUDNN_(MAJOR|MINOR|PATCHLEVEL) +[0-9]+$")
  if(_opsin_cudnn_lines)
    list(TRANSFORM _opsin_cudnn_lines REPLACE "^.* ([0-9]+)$" "\\1")
    list(JOIN _opsin_cudnn_lines "." _opsin_cudnn_version)
  endif()
endforeach()
if(NOT _opsin_cudnn_version VERSION_GREATER_EQUAL OPSIN_CUDNN_MINIMUM)
  _opsin_cuda_wheels_missing("cuDNN ${_opsin_cudnn_version} is older than ${OPSIN_CUDNN_MINIMUM}.")
endif()
string(REPLACE "." ";" _opsin_cudnn_parts ${OPSIN_CUDNN_MINIMUM})
list(GET _opsin_cudnn_parts 0 _opsin_cudnn_major)
list(GET _opsin_cudnn_parts 1 _opsin_cudnn_minor)
# As cudnnGetVersion() counts; checked when the plug-in loads.
math(EXPR OPSIN_CUDNN_MINIMUM_NUMBER "${_opsin_cudnn_major} * 10000 + ${_opsin_cudnn_minor} * 100")
set_property(TARGET CudaWheels::cudnn PROPERTY INTERFACE_COMPILE_DEFINITIONS
                                               OPSIN_CUDNN_MINIMUM=${OPSIN_CUDNN_MINIMUM_NUMBER})
