// Which kernels ran, for the test that none is left out.
#pragma once

namespace opsin::cuda::emulated {

/// Adds the name of a kernel, as its launch spells it, to the file that OPSIN_CUDA_LAUNCHES names; once in
/// each process, and not at all without that variable.
void log_launch(const char* name);

}  // namespace opsin::cuda::emulated
