// The kernels of convolution that every instruction set has, compiled once for each.
#include "conv_depthwise_outer.h"
#include "conv_narrow.h"
#include "conv_table.h"
#include "conv_thin.h"
#include "conv_tile.h"
#include "gemm_convert.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

template <class T>
constexpr ConvKernels<T> dense = {lanes_of<T>, tile_rows,    Dot<T>::step,   Dot<T>::step, tiles<T>,
                                  thin<T>,     conv_pack<T>, conv_unpack<T>, gather<T>,    gather<T>,
                                  outer<T>,    panels<T>,    sum_rows<T>};

template <class S>
constexpr ConvDepthwiseKernels<S> depthwise = {lanes_of<Compute<S>>, conv_depthwise<S>,
                                               conv_depthwise_outer<S>, conv_narrow_outer<S>, sum_rows<S>};

}  // namespace

const ConvTable& conv_table() {
  static constexpr ConvTable table = {dense<float>,
                                      dense<double>,
                                      depthwise<float>,
                                      depthwise<double>,
                                      depthwise<BFloat16>,
                                      depthwise<Float16>,
                                      {widen_all<Float16, float>, narrow_all<Float16, float>},
                                      {widen_all<BFloat16, float>, narrow_all<BFloat16, float>}};
  return table;
}

}  // namespace opsin::cpu::OPSIN_ISA_NS
