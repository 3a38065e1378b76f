#include "channels_cpu.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include <opsin/tensor.h>

#include "core/dispatch.h"
#include "cpu/thread_pool.h"

namespace opsin::cpu {

namespace {

constexpr int64_t kWork = 32768;

/// How many dense rows of `channels` make a row that is wide enough for vectors.
int64_t rows_in_one(int64_t channels) { return channels >= 32 ? 1 : 64 / channels; }

}  // namespace

double near_mean(double mean, double inverse) {
  // Its last digit is that of the sum, 2^-18 of a deviation.
  const double large = 0x1p34 / inverse, rounded = (mean + large) - large;
  if (!std::isfinite(rounded)) return mean;
  using Limits = std::numeric_limits<float>;
  const double size = std::abs(rounded);
  return size >= Limits::min() && size <= Limits::max() ? static_cast<float>(rounded) : rounded;
}

const char* Channels::repeated(const void* numbers, int64_t rows, int64_t times, Tensor& memory) const {
  if (times == 1 || !numbers) return static_cast<const char*>(numbers);
  const DType compute = compute_type(shape_.dtype);
  memory = empty(Dims{rows, times * shape_.channels}, compute);
  const size_t row = static_cast<size_t>(shape_.channels) * item_size(compute);
  char* to = memory.impl()->mutable_data();
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < times; ++i, to += row) {
      std::memcpy(to, static_cast<const char*>(numbers) + static_cast<size_t>(r) * row, row);
    }
  }
  return memory.impl()->data();
}

Numbers Channels::first_elements(const void* x) const {
  const int64_t channels = shape_.channels, inner = shape_.inner;
  Numbers first(static_cast<size_t>(channels));
  dispatch_floating(shape_.dtype, "batch_norm", [&]<class S>() {
    const auto* data = static_cast<const S*>(x);
    for (int64_t c = 0; c < channels; ++c) {
      first[static_cast<size_t>(c)] =
          static_cast<double>(static_cast<compute_t<S>>(data[shape_.columns ? c : c * inner]));
    }
  });
  return first;
}

ChannelParams Channels::at(ChannelParams params, int64_t element) const {
  const int64_t bytes = element * static_cast<int64_t>(item_size(shape_.dtype));
  for (const void** data : {&params.x, &params.g, &params.residual, &params.relu_output}) {
    if (*data) *data = static_cast<const char*>(*data) + bytes;
  }
  for (void** data : {&params.y, &params.masked}) {
    if (*data) *data = static_cast<char*>(*data) + bytes;
  }
  return params;
}

void Channels::sums(const ChannelParams& params, const void* numbers, const Numbers& shift, Numbers& sum,
                    Numbers& product) const {
  const int64_t batch = shape_.batch, channels = shape_.channels, inner = shape_.inner;
  const auto kernel = OPSIN_ISA_SELECT(norm_table).sums[static_cast<int>(shape_.dtype)];
  sum.assign(static_cast<size_t>(channels), 0);
  product.assign(static_cast<size_t>(channels), 0);
  ChannelParams base = params;
  base.columns = shape_.columns;

  if (shape_.columns) {
    const int64_t rows = per_channel();
    const int64_t times = std::min(rows_in_one(channels), rows), width = times * channels;
    const int64_t groups = rows / times;
    const int64_t slices = std::clamp<int64_t>(rows * channels / kWork, 1, std::min<int64_t>(groups, 64));
    Numbers shifts, parts(static_cast<size_t>(2 * slices * width));
    for (int64_t i = 0; i < times; ++i) shifts.insert(shifts.end(), shift.begin(), shift.end());
    Tensor memory;
    base.numbers = repeated(numbers, 3, times, memory);
    base.stride = width;
    parallel_for(slices, 1, [&](int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; ++s) {
        const int64_t from = groups * s / slices, to = groups * (s + 1) / slices;
        ChannelParams p = at(base, from * width);
        p.rows = to - from;
        p.channels = width;
        p.shift = shifts.data();
        p.sum = parts.data() + 2 * s * width;
        p.product = p.sum + width;
        kernel(p);
        const int64_t rest = rows - groups * times;
        if (s + 1 < slices || rest == 0) continue;
        ChannelParams last = at(p, (groups - from) * width);
        last.rows = rest;
        last.channels = channels;
        kernel(last);
      }
    });
    for (int64_t s = 0; s < slices; ++s) {
      const double* part = parts.data() + 2 * s * width;
      for (int64_t i = 0; i < times; ++i, part += channels) {
        for (int64_t c = 0; c < channels; ++c) {
          sum[static_cast<size_t>(c)] += part[c];
          product[static_cast<size_t>(c)] += part[width + c];
        }
      }
    }
    return;
  }

  // Row-major: a row of `inner` elements per sample and channel. A task takes some channels of a slice.
  const int64_t slices =
      std::clamp<int64_t>(std::min(64 / channels, channels * batch * inner / kWork), 1, batch);
  Numbers parts(static_cast<size_t>(2 * slices * channels));
  const int64_t work = std::max<int64_t>(1, per_channel() / slices);
  const int64_t together = std::clamp<int64_t>(kWork / work, 1, channels);
  const int64_t ranges = (channels + together - 1) / together;
  const auto number = static_cast<int64_t>(item_size(compute_type(shape_.dtype)));
  parallel_for(slices * ranges, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t s = task / ranges, c = task % ranges * together;
      ChannelParams p = base;
      p.rows = p.pitch = inner;
      p.channels = std::min(together, channels - c);
      if (numbers) p.numbers = static_cast<const char*>(numbers) + c * number;
      p.stride = channels;
      p.shift = shift.data() + c;
      p.sum = parts.data() + 2 * s * channels + c;
      p.product = p.sum + channels;
      for (int64_t n = batch * s / slices; n < batch * (s + 1) / slices; ++n) {
        kernel(at(p, (n * channels + c) * inner));
      }
    }
  });
  for (int64_t s = 0; s < slices; ++s) {
    const double* part = parts.data() + 2 * s * channels;
    for (int64_t c = 0; c < channels; ++c) {
      sum[static_cast<size_t>(c)] += part[c];
      product[static_cast<size_t>(c)] += part[channels + c];
    }
  }
}

void Channels::apply(void (*kernel)(const ChannelParams&), const ChannelParams& params, const void* numbers,
                     int64_t table_rows) const {
  const int64_t channels = shape_.channels, inner = shape_.inner, rows = per_channel();
  const int64_t times = shape_.columns ? std::min(rows_in_one(channels), rows) : 1, width = times * channels;
  Tensor memory;
  const char* const first = repeated(numbers, table_rows, times, memory);
  ChannelParams base = params;
  base.columns = shape_.columns;
  base.stride = width;
  if (shape_.columns) {
    const int64_t groups = rows / times;
    const auto run_rows = [&](int64_t row, int64_t count, int64_t neighbours) {
      ChannelParams p = at(base, row * channels);
      p.rows = count;
      p.channels = neighbours;
      p.numbers = first;
      kernel(p);
    };
    parallel_for(groups, std::max<int64_t>(1, kWork / width),
                 [&](int64_t begin, int64_t end) { run_rows(begin * times, end - begin, width); });
    if (groups * times < rows) run_rows(groups * times, rows - groups * times, channels);
    return;
  }
  const auto number = static_cast<int64_t>(item_size(compute_type(shape_.dtype)));
  parallel_for(shape_.batch * channels, std::max<int64_t>(1, kWork / inner), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end;) {
      const int64_t c = i % channels;
      ChannelParams p = at(base, i * inner);
      p.rows = p.pitch = inner;
      p.channels = std::min(end - i, channels - c);
      p.numbers = first + c * number;
      kernel(p);
      i += p.channels;
    }
  });
}

}  // namespace opsin::cpu
