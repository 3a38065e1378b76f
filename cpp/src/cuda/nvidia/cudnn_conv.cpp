#include "cuda/nvidia/cudnn_conv.h"

#include <climits>

#include <opsin/error.h>

namespace opsin::cuda::cudnn {

namespace {

/// `sizes` behind `first` and `second`: logical [N, C, spatial...].
Dims with_axes(const ConvProblem& p, int64_t first, int64_t second, const int32_t (&sizes)[3]) {
  Dims dims{first, second};
  for (int i = 3 - p.axes; i < 3; ++i) dims.push_back(sizes[i]);
  return dims;
}

Dims axes_of(const ConvProblem& p, const int32_t (&values)[3]) {
  Dims dims;
  for (int i = 3 - p.axes; i < 3; ++i) dims.push_back(values[i]);
  return dims;
}

/// Of logical [N, C, spatial...] with memory [N, spatial..., C].
Dims channels_last(const Dims& sizes) {
  Dims strides(sizes.size());
  strides[1] = 1;
  int64_t step = sizes[1];
  for (size_t i = sizes.size(); i-- > 2;) {
    strides[i] = step;
    step *= sizes[i];
  }
  strides[0] = step;
  return strides;
}

}  // namespace

bool make_problem(ConvProduct product, const cpu::ConvGeometry& g, DType dtype, ConvProblem& p) {
  p = ConvProblem{};
  bool fits = true;
  const auto narrow = [&](int64_t value) {
    fits = fits && value <= INT32_MAX;
    return static_cast<int32_t>(value);
  };
  const auto narrow_size = [&](int64_t value) {
    fits = fits && value > 0;
    return narrow(value);
  };
  p.product = product;
  p.axes = g.spatial <= 2 ? 2 : 3;
  p.dtype = static_cast<int32_t>(dtype);
  p.groups = narrow(g.groups);
  p.batch = narrow_size(g.batch);
  p.in_channels = narrow_size(g.in_channels);
  p.out_channels = narrow_size(g.out_channels);
  for (int i = 0; i < 3; ++i) {
    p.in[i] = narrow_size(g.in[i]);
    p.kernel[i] = narrow_size(g.kernel[i]);
    p.out[i] = narrow_size(g.out[i]);
    p.stride[i] = narrow(g.stride[i]);
    p.dilation[i] = narrow(g.dilation[i]);
    p.pad_begin[i] = narrow(g.pad_begin[i]);
    p.pad_end[i] = narrow(g.pad_end[i]);
    // A transposed convolution may leave out windows at the end.
    fits = fits && g.pad_begin[i] >= 0 && g.pad_end[i] >= 0;
  }
  return fits;
}

EvenPadding::EvenPadding(const cpu::ConvGeometry& given) : geometry(given), written(given) {
  for (int i = 0; i < 3; ++i) {
    cpu::ConvGeometry& g = geometry;
    int64_t &begin = g.pad_begin[i], &end = g.pad_end[i];
    const int64_t needed =
        (g.out[i] - 1) * g.stride[i] + g.dilation[i] * (g.kernel[i] - 1) + 1 - g.in[i] - begin;
    if (begin >= 0 && begin >= needed && begin < needed + g.stride[i]) {
      end = begin;
      written.pad_begin[i] = written.pad_end[i] = 0;
    } else {
      writes = true;
      g.in[i] += begin + end;
      begin = end = 0;
    }
  }
}

EngineFilter engine_filter(const ConvProblem& p) {
  EngineFilter filter;
  filter.deterministic = p.deterministic != 0;
  const auto dtype = static_cast<DType>(p.dtype);
  const bool half = dtype == kFloat16 || dtype == kBFloat16;
  filter.tensor_cores = half || p.tf32 != 0;
  // Now and then the heuristics of 9.19 put such an engine first even here (64 to 128 channels, 1 x 1, stride
  // 2).
  filter.prefer_tensor_cores = half && p.groups == 1 && p.in_channels % 8 == 0 && p.out_channels % 8 == 0;
  return filter;
}

Graph make_graph(const ConvProblem& p, const Target& target) {
  const auto dtype = static_cast<DType>(p.dtype);
  const cudnnDataType_t type = data_type(dtype), compute = data_type(compute_type(dtype));
  const Dims y_sizes = with_axes(p, p.batch, p.out_channels, p.out);
  std::vector<Descriptor> tensors, operations;
  const auto add_tensor = [&](int64_t uid, const Dims& sizes) {
    tensors.push_back(make_tensor(uid, type, sizes, channels_last(sizes), p.alignment));
  };
  add_tensor(kX, with_axes(p, p.batch, p.in_channels, p.in));
  add_tensor(kWeight, with_axes(p, p.out_channels, p.in_channels / p.groups, p.kernel));

  Descriptor convolution(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  convolution.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, compute)
      .set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_CROSS_CORRELATION)
      .set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, static_cast<int64_t>(p.axes))
      .set_all(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, axes_of(p, p.stride).span())
      .set_all(CUDNN_ATTR_CONVOLUTION_DILATIONS, axes_of(p, p.dilation).span())
      .set_all(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, axes_of(p, p.pad_begin).span())
      .set_all(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, axes_of(p, p.pad_end).span())
      .finalize("convolution");
  const auto set_scales = [&](Descriptor& operation, cudnnBackendAttributeName_t alpha,
                              cudnnBackendAttributeName_t beta) {
    if (compute == CUDNN_DATA_DOUBLE) {
      operation.set(alpha, 1.0).set(beta, 0.0);
    } else {
      operation.set(alpha, 1.0f).set(beta, 0.0f);
    }
  };

  if (p.product == ConvProduct::kBackwardInput) {
    add_tensor(kY, y_sizes);
    Descriptor operation(CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, convolution)
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, tensors[0])
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, tensors[1])
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, tensors[2]);
    set_scales(operation, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
               CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA);
    operation.finalize("convolution operation");
    operations.push_back(std::move(operation));
    return Graph(target, std::move(tensors), std::move(operations));
  }
  if (p.product == ConvProduct::kBackwardWeight) {
    add_tensor(kY, y_sizes);
    Descriptor operation(CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, convolution)
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, tensors[0])
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, tensors[1])
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, tensors[2]);
    set_scales(operation, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
               CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA);
    operation.finalize("convolution operation");
    operations.push_back(std::move(operation));
    return Graph(target, std::move(tensors), std::move(operations));
  }

  // conv -> + residual -> + bias -> relu, the order that has engines; only what comes last is y, the rest has
  // no memory.
  const int steps = 1 + p.bias + p.residual + p.relu;
  int64_t virtual_uid = 100;
  std::vector<Descriptor> values;
  for (int i = 0; i < steps; ++i) {
    const bool last = i == steps - 1;
    values.push_back(make_tensor(last ? kY : virtual_uid++, last ? type : compute, y_sizes,
                                 channels_last(y_sizes), last ? p.alignment : kMostAlignment, !last));
  }
  Descriptor operation(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
  operation.set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, convolution)
      .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, tensors[0])
      .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, tensors[1])
      .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, values[0]);
  set_scales(operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
             CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA);
  operation.finalize("convolution operation");
  operations.push_back(std::move(operation));
  size_t at = 0;
  const auto append = [&](cudnnPointwiseMode_t mode, const Descriptor* b) {
    operations.push_back(make_pointwise(mode, compute, values[at], b, values[at + 1]));
    ++at;
  };
  if (p.residual) {
    add_tensor(kResidual, y_sizes);
    append(CUDNN_POINTWISE_ADD, &tensors.back());
  }
  if (p.bias) {
    Dims sizes(y_sizes.size(), 1);
    sizes[1] = p.out_channels;
    add_tensor(kBias, sizes);
    append(CUDNN_POINTWISE_ADD, &tensors.back());
  }
  if (p.relu) append(CUDNN_POINTWISE_RELU_FWD, nullptr);
  for (Descriptor& value : values) tensors.push_back(std::move(value));
  return Graph(target, std::move(tensors), std::move(operations));
}

std::string describe(const ConvProblem& p) {
  constexpr const char* names[] = {"conv", "conv_backward_input", "conv_backward_weight"};
  return opsin::detail::concat(
      names[static_cast<int>(p.product)], p.bias ? " + bias" : "", p.residual ? " + residual" : "",
      p.relu ? " + relu" : "", " ", name(static_cast<DType>(p.dtype)), " x ",
      str(with_axes(p, p.batch, p.in_channels, p.in)), " weight ",
      str(with_axes(p, p.out_channels, p.in_channels / p.groups, p.kernel)), " stride ",
      str(axes_of(p, p.stride)), " padding ", str(axes_of(p, p.pad_begin)), " to ",
      str(axes_of(p, p.pad_end)), " dilation ", str(axes_of(p, p.dilation)), " groups ", p.groups,
      " alignment ", p.alignment, p.tf32 ? " tf32" : "", p.deterministic ? " deterministic" : "");
}

}  // namespace opsin::cuda::cudnn
