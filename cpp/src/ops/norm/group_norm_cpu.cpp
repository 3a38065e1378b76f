// Fills the CPU slots of group normalization with the loops over channels of batch normalization.
#include "channels_cpu.h"

#include <algorithm>
#include <cmath>

#include <opsin/ops/creation.h>

#include "core/dispatch.h"
#include "cpu/thread_pool.h"

namespace opsin {

namespace {

constexpr int64_t kWork = 32768;
using cpu::Numbers;

/// The samples, or, where the values of a channel are neighbours, the groups: units that are dense in memory
/// and need nothing of each other. Few of them are cut into slices, by shape alone.
class Units {
 public:
  explicit Units(const GroupShape& shape)
      : shape_(shape),
        count_(shape.batch * (shape.columns ? 1 : shape.groups)),
        channels_(shape.columns ? shape.channels : shape.of_group()),
        times_(shape.columns && channels_ < 32 ? std::min(64 / channels_, shape.inner) : 1),
        slices_(count_ >= 16 ? 1 : std::clamp<int64_t>(channels_ * shape.inner / kWork, 1, 64)) {
    slices_ = std::min(slices_, shape.inner / times_);
  }

  int64_t count() const { return count_; }
  int64_t channels() const { return channels_; }  ///< Of a unit.
  /// The first channel of a unit among [batch, channels].
  int64_t first(int64_t unit) const { return unit * channels_; }

  /// For each unit sums(unit, slice), then finish(unit), then apply(unit, slice).
  template <class Sums, class Finish, class Apply>
  void run(Sums sums, Finish finish, Apply apply) const {
    const int64_t work = channels_ * shape_.inner;
    // One thread finds the unit that it has just summed in its cache.
    if (slices_ == 1 || cpu::num_threads() == 1) {
      cpu::parallel_for(count_, std::max<int64_t>(1, kWork / work), [&](int64_t begin, int64_t end) {
        for (int64_t unit = begin; unit < end; ++unit) {
          for (int64_t slice = 0; slice < slices_; ++slice) sums(unit, slice);
          finish(unit);
          for (int64_t slice = 0; slice < slices_; ++slice) apply(unit, slice);
        }
      });
      return;
    }
    const auto each = [&](auto f) {
      cpu::parallel_for(count_ * slices_, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) f(i / slices_, i % slices_);
      });
    };
    each(sums);
    for (int64_t unit = 0; unit < count_; ++unit) finish(unit);
    each(apply);
  }

  /// Calls `kernel` for a slice of a unit: p holds x, g and y of the whole tensor, `numbers` rows of the
  /// unit's numbers of the compute type and the rest arrays of [width()].
  template <class Kernel>
  void call(Kernel kernel, cpu::ChannelParams p, const void* numbers, int64_t unit, int64_t slice) const {
    const int64_t begin = bound(slice), end = bound(slice + 1), inner = shape_.inner;
    p.columns = shape_.columns;
    p.stride = width();
    if (shape_.columns) {
      p.numbers = numbers;
      const int64_t at = first(unit) * inner, wide = (end - begin) / times_, rest = (end - begin) % times_;
      cpu::ChannelParams all = moved(p, at + begin * channels_);
      all.rows = wide;
      all.channels = width();
      kernel(all);
      if (rest == 0) return;
      cpu::ChannelParams last = moved(p, at + (end - rest) * channels_);
      last.rows = rest;
      last.channels = channels_;
      kernel(last);
      return;
    }
    cpu::ChannelParams rows = moved(p, first(unit) * inner + begin);
    rows.rows = end - begin;
    rows.channels = channels_;
    rows.pitch = inner;
    rows.numbers = numbers;
    kernel(rows);
  }

  int64_t slices() const { return slices_; }
  /// Channels of a unit, repeated so often that a row of them is wide enough for vectors.
  int64_t width() const { return times_ * channels_; }

 private:
  /// Where in a channel a slice begins: after whole rows of width().
  int64_t bound(int64_t slice) const {
    return slice == slices_ ? shape_.inner : shape_.inner / times_ * slice / slices_ * times_;
  }
  cpu::ChannelParams moved(cpu::ChannelParams p, int64_t element) const {
    const int64_t bytes = element * static_cast<int64_t>(item_size(shape_.dtype));
    p.x = static_cast<const char*>(p.x) + bytes;
    if (p.g) p.g = static_cast<const char*>(p.g) + bytes;
    if (p.y) p.y = static_cast<char*>(p.y) + bytes;
    return p;
  }

  GroupShape shape_;
  int64_t count_, channels_, times_, slices_;
};

/// Two sums per channel of every unit: of g and g (x - shift), or of x - shift and its square without g.
class Sums {
 public:
  Sums(const Units& units, DType dtype)
      : units_(units),
        kernel_(OPSIN_ISA_SELECT(cpu::norm_table).sums[static_cast<int>(dtype)]),
        parts_(empty(Dims{units.count(), units.slices(), 2, units.width()}, kFloat64)) {}

  /// `shift` per channel of the unit.
  void take(cpu::ChannelParams p, const double* shift, int64_t unit, int64_t slice) {
    const int64_t width = units_.width(), channels = units_.channels();
    Numbers shifts;
    for (int64_t i = 0; i < width; i += channels) shifts.insert(shifts.end(), shift, shift + channels);
    double* part = at(unit) + 2 * slice * width;
    std::fill_n(part, 2 * width, 0.0);
    p.shift = shifts.data();
    p.sum = part;
    p.product = part + width;
    units_.call(kernel_, p, nullptr, unit, slice);
  }
  /// Adds slices and repeats up: [2][channels] at the place that is returned.
  double* total(int64_t unit) {
    const int64_t width = units_.width(), channels = units_.channels();
    double* sums = at(unit);
    for (int64_t slice = 1; slice < units_.slices(); ++slice) {
      for (int64_t i = 0; i < 2 * width; ++i) sums[i] += sums[slice * 2 * width + i];
    }
    for (int64_t row = 0; row < 2; ++row) {
      for (int64_t i = channels; i < width; ++i) sums[row * width + i % channels] += sums[row * width + i];
    }
    if (width > channels) std::copy_n(sums + width, channels, sums + channels);
    return sums;
  }
  double* at(int64_t unit) {
    return parts_.mutable_data<double>() + unit * units_.slices() * 2 * units_.width();
  }

 private:
  const Units& units_;
  void (*kernel_)(const cpu::ChannelParams&);
  Tensor parts_;
};

/// `rows` rows of numbers, of the compute type, per unit.
class Tables {
 public:
  Tables(const Units& units, int64_t rows, DType dtype)
      : units_(units),
        rows_(rows),
        dtype_(compute_type(dtype)),
        numbers_(empty(Dims{units.count(), rows, units.width()}, dtype_)) {}

  void* at(int64_t unit) { return static_cast<char*>(numbers_.impl()->mutable_data()) + bytes(unit * rows_); }
  /// Row `row` of a unit.
  void set(int64_t unit, int64_t row, const Numbers& values) {
    dispatch_floating(dtype_, "group_norm", [&]<class T>() {
      auto* to = static_cast<T*>(at(unit)) + row * units_.width();
      for (int64_t i = 0; i < units_.width(); i += units_.channels()) {
        for (const double value : values) *to++ = static_cast<T>(static_cast<compute_t<T>>(value));
      }
    });
  }

 private:
  int64_t bytes(int64_t row) const { return row * units_.width() * static_cast<int64_t>(item_size(dtype_)); }

  const Units& units_;
  int64_t rows_;
  DType dtype_;
  Tensor numbers_;
};

/// What is in the compute type as float64; `missing` without data.
Numbers read(const void* data, int64_t n, DType dtype, double missing) {
  Numbers numbers(static_cast<size_t>(n), missing);
  if (!data) return numbers;
  if (dtype == kFloat64) {
    std::copy_n(static_cast<const double*>(data), n, numbers.begin());
  } else {
    std::copy_n(static_cast<const float*>(data), n, numbers.begin());
  }
  return numbers;
}

double rounded(double value, DType dtype) {
  return dtype == kFloat64 ? value : static_cast<double>(static_cast<float>(value));
}

void first_values(const GroupNormParams& p, const Units& units, int64_t unit, Numbers& to) {
  dispatch_floating(p.shape.dtype, "group_norm", [&]<class S>() {
    const S* x = static_cast<const S*>(p.x) + units.first(unit) * p.shape.inner;
    for (size_t c = 0; c < to.size(); ++c) {
      const auto at = static_cast<int64_t>(c) * (p.shape.columns ? 1 : p.shape.inner);
      to[c] = static_cast<double>(static_cast<compute_t<S>>(x[at]));
    }
  });
}

/// Whether groups are dense in memory and so many that each is one thread's.
bool is_whole(const Units& units, const GroupShape& shape) { return !shape.columns && units.slices() == 1; }

/// The forward pass over groups that are dense: the sums need not tell their channels apart.
template <class S>
void forward_whole(const GroupNormParams& p, const Units& units) {
  using T = compute_t<S>;
  const GroupShape& shape = p.shape;
  const cpu::NormTable& table = OPSIN_ISA_SELECT(cpu::norm_table);
  const auto sums = table.sums[static_cast<int>(shape.dtype)];
  const auto apply = table.apply[static_cast<int>(shape.dtype)];
  const auto* weight = static_cast<const T*>(p.weight);
  const auto* bias = static_cast<const T*>(p.bias);
  const int64_t channels = units.channels(), n = channels * shape.inner;
  const double one = 1 / static_cast<double>(n);
  cpu::parallel_for(units.count(), std::max<int64_t>(1, kWork / n), [&](int64_t begin, int64_t end) {
    std::vector<T> numbers(static_cast<size_t>(3 * channels));
    T *const means = numbers.data(), *const scales = means + channels, *const offsets = scales + channels;
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t first = units.first(unit), channel = first % shape.channels;
      const S* x = static_cast<const S*>(p.x) + first * shape.inner;
      const double shift = static_cast<double>(static_cast<T>(*x));
      double sum = 0, square = 0;
      cpu::ChannelParams k{};
      k.x = x;
      k.rows = k.pitch = n;
      k.channels = 1;
      k.shift = &shift;
      k.sum = &sum;
      k.product = &square;
      sums(k);
      const double away = sum * one, centre = shift + away, spread = square * one - away * away;
      const double variance = spread > 0 || spread != spread ? spread : 0;
      const double inverse = 1 / std::sqrt(variance + p.eps);
      const T near_mean = static_cast<T>(centre);
      for (int64_t c = 0; c < channels; ++c) {
        p.mean[first + c] = centre;
        p.inverse[first + c] = inverse;
        // What rounding the mean loses goes into the offset.
        const double scale = weight ? static_cast<double>(weight[channel + c]) * inverse : inverse;
        const double offset = bias ? static_cast<double>(bias[channel + c]) : 0;
        means[c] = near_mean;
        scales[c] = static_cast<T>(scale);
        offsets[c] = static_cast<T>(offset + (static_cast<double>(near_mean) - centre) * scale);
      }
      k.rows = k.pitch = shape.inner;
      k.channels = k.stride = channels;
      k.numbers = means;
      k.y = static_cast<S*>(p.y) + first * shape.inner;
      apply(k);
    }
  });
}

void forward(const GroupNormParams& p) {
  const GroupShape& shape = p.shape;
  const Units units(shape);
  const DType dtype = shape.dtype;
  if (is_whole(units, shape)) {
    dispatch_floating(dtype, "group_norm", [&]<class S>() { forward_whole<S>(p, units); });
    return;
  }
  const auto kernel = OPSIN_ISA_SELECT(cpu::norm_table).apply[static_cast<int>(dtype)];
  const auto inner = static_cast<double>(shape.inner);
  const auto channels = static_cast<size_t>(units.channels()),
             of_group = static_cast<size_t>(shape.of_group());
  const Numbers weight = read(p.weight, shape.channels, compute_type(dtype), 1),
                bias = read(p.bias, shape.channels, compute_type(dtype), 0);
  Sums sums(units, dtype);
  Tables tables(units, 3, dtype);
  cpu::ChannelParams base{};
  base.x = p.x;
  const auto finish = [&](int64_t unit) {
    const double* sum = sums.total(unit);
    const double* square = sum + channels;
    Numbers near(channels), mean(channels), scale(channels), offset(channels);
    const auto first_channel = static_cast<size_t>(units.first(unit) % shape.channels);
    first_values(p, units, unit, near);
    for (size_t first = 0; first < channels; first += of_group) {
      double total = 0, m2 = 0;
      for (size_t c = first; c < first + of_group; ++c) total += near[c] + sum[c] / inner;
      const double centre = total / static_cast<double>(of_group);
      for (size_t c = first; c < first + of_group; ++c) {
        const double of_channel = sum[c] / inner, distance = near[c] + of_channel - centre;
        m2 += square[c] - sum[c] * of_channel + inner * distance * distance;
      }
      const double variance = m2 > 0 || m2 != m2 ? m2 / (inner * static_cast<double>(of_group)) : 0;
      const double inverse = 1 / std::sqrt(variance + p.eps), near_mean = rounded(centre, dtype);
      for (size_t c = first; c < first + of_group; ++c) {
        const int64_t at = units.first(unit) + static_cast<int64_t>(c);
        const size_t channel = first_channel + c;
        p.mean[at] = centre;
        p.inverse[at] = inverse;
        // What rounding the mean loses goes into the offset.
        mean[c] = near_mean;
        scale[c] = weight[channel] * inverse;
        offset[c] = bias[channel] + (near_mean - centre) * scale[c];
      }
    }
    tables.set(unit, 0, mean);
    tables.set(unit, 1, scale);
    tables.set(unit, 2, offset);
  };
  units.run(
      [&](int64_t unit, int64_t slice) {
        Numbers near(channels);
        first_values(p, units, unit, near);
        sums.take(base, near.data(), unit, slice);
      },
      finish,
      [&](int64_t unit, int64_t slice) {
        cpu::ChannelParams k = base;
        k.y = p.y;
        units.call(kernel, k, tables.at(unit), unit, slice);
      });
}

/// Per channel, over all samples.
void write_sums(const Numbers& values, const GroupShape& shape, void* to) {
  dispatch_floating(compute_type(shape.dtype), "group_norm", [&]<class T>() {
    const auto channels = static_cast<size_t>(shape.channels);
    for (size_t c = 0; c < channels; ++c) {
      double sum = 0;
      for (size_t i = c; i < values.size(); i += channels) sum += values[i];
      static_cast<T*>(to)[c] = static_cast<T>(static_cast<compute_t<T>>(sum));
    }
  });
}

/// The gradients of groups that are dense. Sums for weight and bias: per sample and channel.
template <class S>
void backward_whole(const GroupNormBackwardParams& p, const Units& units, Numbers& weight_sums,
                    Numbers& bias_sums) {
  using T = compute_t<S>;
  const GroupShape& shape = p.shape;
  const cpu::NormTable& table = OPSIN_ISA_SELECT(cpu::norm_table);
  const auto sums = table.sums[static_cast<int>(shape.dtype)];
  const auto apply = table.apply_backward[static_cast<int>(shape.dtype)];
  const auto* weight = static_cast<const T*>(p.weight);
  const int64_t channels = units.channels(), work = channels * shape.inner;
  const double one = 1 / static_cast<double>(work);
  cpu::parallel_for(units.count(), std::max<int64_t>(1, kWork / work), [&](int64_t begin, int64_t end) {
    const auto width = static_cast<size_t>(channels);
    Numbers both(2 * width), near(width);
    std::vector<T> numbers(6 * width);
    double *const sum = both.data(), *const product = sum + channels;
    T* const means = numbers.data();
    T *const scales = means + 3 * channels, *const offsets = scales + channels, *slopes = offsets + channels;
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t first = units.first(unit), channel = first % shape.channels, at = first * shape.inner;
      std::fill(both.begin(), both.end(), 0.0);
      cpu::ChannelParams k{};
      k.rows = k.pitch = shape.inner;
      k.channels = k.stride = channels;
      k.x = static_cast<const S*>(p.x) + at;
      k.g = static_cast<const S*>(p.g) + at;
      const double inverse = p.inverse[first], centre = p.mean[first];
      std::fill(near.begin(), near.end(), cpu::near_mean(centre, inverse));
      k.shift = near.data();
      k.sum = sum;
      k.product = product;
      sums(k);
      const T near_mean = static_cast<T>(centre);
      double total = 0, total_product = 0;
      for (int64_t c = 0; c < channels; ++c) {
        const double w = weight ? static_cast<double>(weight[channel + c]) : 1;
        product[c] += (near[0] - centre) * sum[c];
        total += w * sum[c];
        total_product += w * product[c];
        scales[c] = static_cast<T>(w * inverse);
        if (p.grad_weight) weight_sums[static_cast<size_t>(first + c)] = product[c] * inverse;
        if (p.grad_bias) bias_sums[static_cast<size_t>(first + c)] = sum[c];
      }
      if (!p.grad_x) continue;
      const double tilt = inverse * inverse * inverse * total_product * one;
      const double offset = inverse * total * one + (static_cast<double>(near_mean) - centre) * tilt;
      std::fill_n(means, width, near_mean);
      std::fill_n(offsets, width, static_cast<T>(offset));
      std::fill_n(slopes, width, static_cast<T>(tilt));
      k.numbers = means;
      k.y = static_cast<S*>(p.grad_x) + at;
      apply(k);
    }
  });
}

void backward(const GroupNormBackwardParams& p) {
  const GroupShape& shape = p.shape;
  const Units units(shape);
  const DType dtype = shape.dtype;
  const auto kernel = OPSIN_ISA_SELECT(cpu::norm_table).apply_backward[static_cast<int>(dtype)];
  const auto channels = static_cast<size_t>(units.channels()),
             of_group = static_cast<size_t>(shape.of_group());
  const auto n = static_cast<double>(shape.inner * shape.of_group());
  const Numbers weight = read(p.weight, shape.channels, compute_type(dtype), 1);
  const auto all = static_cast<size_t>(shape.batch * shape.channels);
  Numbers weight_sums(p.grad_weight ? all : 0), bias_sums(p.grad_bias ? all : 0);
  if (is_whole(units, shape)) {
    dispatch_floating(dtype, "group_norm",
                      [&]<class S>() { backward_whole<S>(p, units, weight_sums, bias_sums); });
    if (p.grad_weight) write_sums(weight_sums, shape, p.grad_weight);
    if (p.grad_bias) write_sums(bias_sums, shape, p.grad_bias);
    return;
  }
  Sums sums(units, dtype);
  Tables tables(units, 6, dtype);
  cpu::ChannelParams base{};
  base.x = p.x;
  base.g = p.g;
  const auto finish = [&](int64_t unit) {
    double* const sum = sums.total(unit);
    double* const product = sum + channels;
    Numbers mean(channels), scale(channels), offset(channels), slope(channels);
    for (size_t first = 0; first < channels; first += of_group) {
      const auto at = static_cast<size_t>(units.first(unit)) + first;
      const size_t channel = at % static_cast<size_t>(shape.channels);
      const double inverse = p.inverse[at], centre = p.mean[at], near_mean = rounded(centre, dtype);
      double total = 0, total_product = 0;
      const double apart = cpu::near_mean(centre, inverse) - centre;
      for (size_t i = 0; i < of_group; ++i) {
        product[first + i] += apart * sum[first + i];
        total += weight[channel + i] * sum[first + i];
        total_product += weight[channel + i] * product[first + i];
        if (p.grad_weight) weight_sums[at + i] = product[first + i] * inverse;
        if (p.grad_bias) bias_sums[at + i] = sum[first + i];
      }
      const double tilt = inverse * inverse * inverse * total_product / n;
      for (size_t i = 0; i < of_group; ++i) {
        mean[first + i] = near_mean;
        scale[first + i] = weight[channel + i] * inverse;
        offset[first + i] = inverse * total / n + (near_mean - centre) * tilt;
        slope[first + i] = tilt;
      }
    }
    if (!p.grad_x) return;
    tables.set(unit, 0, mean);
    tables.set(unit, 3, scale);
    tables.set(unit, 4, offset);
    tables.set(unit, 5, slope);
  };
  units.run(
      [&](int64_t unit, int64_t slice) {
        Numbers near(channels);
        for (size_t c = 0; c < channels; ++c) {
          const int64_t at = units.first(unit) + static_cast<int64_t>(c);
          near[c] = c % of_group != 0 ? near[c - 1] : cpu::near_mean(p.mean[at], p.inverse[at]);
        }
        sums.take(base, near.data(), unit, slice);
      },
      finish,
      [&](int64_t unit, int64_t slice) {
        if (!p.grad_x) return;
        cpu::ChannelParams k = base;
        k.y = p.grad_x;
        units.call(kernel, k, tables.at(unit), unit, slice);
      });
  if (p.grad_weight) write_sums(weight_sums, shape, p.grad_weight);
  if (p.grad_bias) write_sums(bias_sums, shape, p.grad_bias);
}

}  // namespace

void register_group_norm_cpu() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    group_norm_forward.set(DeviceType::kCPU, dtype, forward);
    group_norm_backward.set(DeviceType::kCPU, dtype, backward);
  }
}

}  // namespace opsin
