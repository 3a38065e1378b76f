// The device on which the tests of kernel sources run: nothing but the emulator.
#include "cuda/current_stream.h"

namespace opsin::cuda {

void* current_stream() { return nullptr; }
void before_launch() {}

}  // namespace opsin::cuda
