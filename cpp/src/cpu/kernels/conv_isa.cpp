// The dense kernels of convolution that every instruction set has, compiled once for each.
#include "conv_table.h"
#include "conv_thin.h"
#include "conv_tile.h"
#include "gemm_convert.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

template <class T>
constexpr ConvKernels<T> dense = {
    lanes_of<T>, tile_rows, Dot<T>::step, Dot<T>::step,   fetch_steps* Dot<T>::step,
    tiles<T>,    thin<T>,   conv_pack<T>, conv_unpack<T>, gather<T>,
    gather<T>,   outer<T>,  panels<T>,    sum_rows<T>};

}  // namespace

const ConvTable& conv_table() {
  static constexpr ConvTable table = {dense<float>,
                                      dense<double>,
                                      {widen_all<Float16, float>, narrow_all<Float16, float>},
                                      {widen_all<BFloat16, float>, narrow_all<BFloat16, float>}};
  return table;
}

}  // namespace opsin::cpu::OPSIN_ISA_NS
