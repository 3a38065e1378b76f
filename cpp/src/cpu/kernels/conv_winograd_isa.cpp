// The transforms of Winograd convolution, compiled once for each instruction set.
#include "conv_winograd.h"

namespace opsin::cpu::OPSIN_ISA_NS {

const WinogradTables& winograd_tables() {
  static constexpr WinogradTables tables = {
      {winograd<Winograd2, float>, winograd<Winograd4, float>, {}, winograd_grad<float>},
      winograd_half<BFloat16>,
      winograd_half<Float16>};
  return tables;
}

}  // namespace opsin::cpu::OPSIN_ISA_NS
