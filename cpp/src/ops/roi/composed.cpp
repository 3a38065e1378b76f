// Second derivatives of RoI pooling. The samples are listed from the values of the boxes; their places
// between pixels are then computed once more, from the boxes as variables.
#include "composed.h"

#include "corners.h"

#include <vector>

#include <opsin/ops/binary.h>
#include <opsin/ops/cat.h>
#include <opsin/ops/copy.h>
#include <opsin/ops/creation.h>
#include <opsin/ops/index.h>
#include <opsin/ops/view.h>

#include "core/dispatch.h"

namespace opsin {

namespace {

/// Samples, and in which rows of x and g they take part. For maxima a row is a single element.
struct Listed {
  explicit Listed(const RoiGeometry& g) : corners(size_t{1} << g.axes), axes(static_cast<size_t>(g.axes)) {}

  struct Axis {
    std::vector<double> place, low, moves;
  };
  std::vector<int64_t> region, out;
  std::vector<double> share;
  std::vector<std::vector<int64_t>> corners;
  std::vector<Axis> axes;  ///< That of x first.
  std::vector<double> stretches[3];
};

template <class V>
Tensor made(const std::vector<V>& values, DType dtype, Device device) {
  constexpr DType kOwn = std::is_same_v<V, double> ? kFloat64 : kInt64;
  const Tensor host = empty(Dims{static_cast<int64_t>(values.size())}, kOwn);
  std::copy(values.begin(), values.end(), host.mutable_data<V>());
  return to(to(host, dtype), device);
}

template <class T>
void list_sample(const RoiGeometry& g, Listed& listed, const roi::Sample<T> (&s)[3], int64_t plane, int64_t k,
                 int64_t out, double share, int64_t width, int64_t column) {
  listed.region.push_back(k);
  listed.out.push_back(out);
  listed.share.push_back(share);
  for (size_t corner = 0; corner < listed.corners.size(); ++corner) {
    int64_t pixel = 0;
    for (int a = 0; a < 3; ++a) {
      pixel = pixel * g.size[a] + ((corner >> (2 - a) & 1) != 0 ? s[a].high : s[a].low);
    }
    listed.corners[corner].push_back((plane * g.positions() + pixel) * width + column);
  }
  for (size_t i = 0; i < listed.axes.size(); ++i) {
    const roi::Sample<T>& one = s[2 - i];
    listed.axes[i].place.push_back(static_cast<double>(one.place));
    listed.axes[i].low.push_back(one.low);
    listed.axes[i].moves.push_back(one.moves ? 1 : 0);
  }
}

template <class T>
Listed list_samples(const RoiGeometry& g, const T* boxes, const int32_t* taken) {
  Listed listed(g);
  for (int64_t k = 0; k < g.rois; ++k) {
    const Roi<T> region = roi::at(g, boxes, k);
    for (int a = 0; a < 3; ++a) listed.stretches[a].push_back(region.stretches[a] ? 1 : 0);
    if (region.image < 0 || region.image >= g.images) continue;  // A GPU reported it.
    for (int64_t number = 0; number < g.bins(); ++number) {
      const int64_t row = k * g.bins() + number;
      const int64_t plane = g.by_bin ? region.image * g.bins() + number : region.image;
      const int bin[3] = {static_cast<int>(number / g.pooled[2] / g.pooled[1]),
                          static_cast<int>(number / g.pooled[2] % g.pooled[1]),
                          static_cast<int>(number % g.pooled[2])};
      roi::Span span[3];
      double share = 1;
      for (int a = 0; a < 3; ++a) {
        span[a] = roi::samples(g, region, a, bin[a]);
        share /= roi::samples_in_all(g, region, a, span[a]);
      }
      const auto add = [&](const int64_t(&number_along)[3], int64_t out, double part, int64_t width,
                           int64_t column) {
        roi::Sample<T> s[3];
        bool inside = true;
        for (int a = 0; a < 3; ++a) {
          s[a] = roi::sample(g, region, a, bin[a], span[a].first + static_cast<int>(number_along[a]));
          inside &= s[a].inside;
        }
        if (inside) list_sample(g, listed, s, plane, k, out, part, width, column);
      };
      if (taken) {
        for (int64_t c = 0; c < g.channels; ++c) {
          const int64_t which = taken[row * g.channels + c];
          if (which < 0) continue;
          add({which / span[2].count() / span[1].count(), which / span[2].count() % span[1].count(),
               which % span[2].count()},
              row * g.channels + c, 1, g.channels, c);
        }
        continue;
      }
      for (int64_t z = 0; z < span[0].count(); ++z) {
        for (int64_t y = 0; y < span[1].count(); ++y) {
          for (int64_t x = 0; x < span[2].count(); ++x) add({z, y, x}, row, share, 1, 0);
        }
      }
    }
  }
  return listed;
}

}  // namespace

// With s = start + place * extent the coordinate of a sample and f = s - low its fraction, start and extent
// are linear in the box; weights are products of f and 1 - f.
RoiGradients composed_roi_gradients(const RoiParams& p, const Tensor& x, const Tensor& boxes,
                                    const Tensor& taken, const Tensor& g, bool of_input, bool of_boxes) {
  const RoiGeometry& geometry = p.geometry;
  const DType dtype = g.dtype();
  const Device device = g.device();
  const Tensor seen = contiguous(to(boxes.detach(), kCPU));
  Tensor which;
  if (taken.defined()) {
    Dims order{0};
    for (int64_t d = 2; d < taken.dim(); ++d) order.push_back(d);
    order.push_back(1);
    which = contiguous(permute(to(taken, kCPU), order));
  }
  const int32_t* const which_data = which.defined() ? which.data<int32_t>() : nullptr;
  const Listed listed = dtype == kFloat64 ? list_samples(geometry, seen.data<double>(), which_data)
                                          : list_samples(geometry, seen.data<float>(), which_data);
  const auto numbers = [&](const std::vector<double>& values) { return made(values, dtype, device); };
  const Tensor region = made(listed.region, kInt64, device), out = made(listed.out, kInt64, device);

  Corners corners;
  for (const auto& rows : listed.corners) corners.rows.push_back(made(rows, kInt64, device));
  const int64_t axes = geometry.axes;
  std::vector<Tensor> places, moves, stretches;
  for (int64_t i = 0; i < axes; ++i) {
    const Listed::Axis& axis = listed.axes[static_cast<size_t>(i)];
    places.push_back(numbers(axis.place));
    moves.push_back(numbers(axis.moves));
    stretches.push_back(numbers(listed.stretches[2 - i]));
    const Tensor first = select(boxes, 1, 1 + i) * Scalar(geometry.scale);
    const Tensor last = select(boxes, 1, 1 + axes + i) * Scalar(geometry.scale);
    const Tensor fixed = rsub(stretches.back(), wrap_number(1.0));
    const Tensor extent = (last - first) * stretches.back() + fixed;
    const Tensor at = index_select(first - Scalar(geometry.offset), 0, region) +
                      places.back() * index_select(extent, 0, region);
    corners.fractions.push_back((at - numbers(axis.low)) * moves.back());
  }

  // A maximum takes single elements, a mean whole rows of channels.
  const int64_t width = taken.defined() ? 1 : geometry.channels;
  const Tensor gradients =
      index_select(reshape(g, Dims{-1, width}), 0, out) * unsqueeze(numbers(listed.share), 1);
  RoiGradients result;
  const int64_t elements = geometry.planes() * geometry.positions() * geometry.channels;
  if (of_input) {
    Dims sizes{geometry.planes()};
    for (int64_t a = 3 - axes; a < 3; ++a) sizes.push_back(geometry.size[a]);
    sizes.push_back(geometry.channels);
    result.input = reshape(corners.spread(gradients, elements / width), sizes);
  }
  if (!of_boxes) return result;
  const std::vector<Tensor> slopes = corners.slopes(reshape(x, Dims{-1, width}), gradients);
  const Tensor none = zeros(Dims{geometry.rois}, dtype, device);
  TensorList first, last;
  for (size_t i = 0; i < slopes.size(); ++i) {
    const Tensor slope = slopes[i] * moves[i];
    const Tensor of_start = index_add(none, 0, region, slope);
    const Tensor of_extent = index_add(none, 0, region, slope * places[i]) * stretches[i];
    first.push_back((of_start - of_extent) * Scalar(geometry.scale));
    last.push_back(of_extent * Scalar(geometry.scale));
  }
  TensorList columns{none};
  columns.insert(columns.end(), first.begin(), first.end());
  columns.insert(columns.end(), last.begin(), last.end());
  result.boxes = stack(columns, 1);
  return result;
}

}  // namespace opsin
