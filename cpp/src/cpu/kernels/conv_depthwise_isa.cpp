// The depthwise and narrow kernels of convolution, compiled once for each instruction set.
#include "conv_depthwise_outer.h"
#include "conv_narrow.h"
#include "conv_table.h"

namespace opsin::cpu::OPSIN_ISA_NS {
namespace {

template <class S>
constexpr ConvDepthwiseKernels<S> depthwise = {
    lanes_of<Compute<S>>,    conv_depthwise<S>,
    conv_depthwise_outer<S>, has_depthwise_taps<S> ? conv_depthwise_outer_rows<S> : nullptr,
    conv_narrow_outer<S>,    sum_rows<S>};

}  // namespace

const ConvDepthwiseTable& conv_depthwise_table() {
  static constexpr ConvDepthwiseTable table = {depthwise<float>, depthwise<double>, depthwise<BFloat16>,
                                               depthwise<Float16>};
  return table;
}

}  // namespace opsin::cpu::OPSIN_ISA_NS
