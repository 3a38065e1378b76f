#include "channels_cpu.h"

#include <algorithm>

#include <opsin/tensor.h>

#include "core/dispatch.h"
#include "cpu/thread_pool.h"

namespace opsin::cpu {

namespace {

constexpr int64_t kWork = 32768;

/// How many dense rows of `channels` make a row that is wide enough for vectors.
int64_t rows_in_one(int64_t channels) { return channels >= 32 ? 1 : 64 / channels; }

template <class T>
void repeat_into(const Numbers& from, int64_t times, T* to) {
  for (int64_t i = 0; i < times; ++i) {
    for (const double value : from) *to++ = static_cast<T>(value);
  }
}

}  // namespace

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

void Channels::sums(const void* x, const void* g, const Numbers& shift, Numbers& sum,
                    Numbers& product) const {
  const int64_t batch = shape_.batch, channels = shape_.channels, inner = shape_.inner;
  const auto kernel = OPSIN_ISA_SELECT(norm_table).sums[static_cast<int>(shape_.dtype)];
  const auto item = static_cast<int64_t>(item_size(shape_.dtype));
  const auto* xs = static_cast<const char*>(x);
  const auto* gs = static_cast<const char*>(g);
  sum.assign(static_cast<size_t>(channels), 0);
  product.assign(static_cast<size_t>(channels), 0);
  ChannelParams base{};
  base.columns = shape_.columns;

  if (shape_.columns) {
    const int64_t rows = per_channel();
    const int64_t times = std::min(rows_in_one(channels), rows), width = times * channels;
    const int64_t groups = rows / times;
    const int64_t slices = std::clamp<int64_t>(rows * channels / kWork, 1, std::min<int64_t>(groups, 64));
    Numbers shifts(static_cast<size_t>(width)), parts(static_cast<size_t>(2 * slices * width));
    repeat_into(shift, times, shifts.data());
    parallel_for(slices, 1, [&](int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; ++s) {
        const int64_t from = groups * s / slices, to = groups * (s + 1) / slices;
        ChannelParams p = base;
        p.rows = to - from;
        p.channels = width;
        p.x = xs + from * width * item;
        p.g = gs ? gs + from * width * item : nullptr;
        p.shift = shifts.data();
        p.sum = parts.data() + 2 * s * width;
        p.product = p.sum + width;
        kernel(p);
        const int64_t rest = rows - groups * times;
        if (s + 1 < slices || rest == 0) continue;
        p.rows = rest;
        p.channels = channels;
        p.x = xs + groups * width * item;
        p.g = gs ? gs + groups * width * item : nullptr;
        kernel(p);
      }
    });
    for (int64_t s = 0; s < slices; ++s) {
      const double* part = parts.data() + 2 * s * width;
      for (int64_t i = 0; i < width; ++i) {
        const auto c = static_cast<size_t>(i % channels);
        sum[c] += part[i];
        product[c] += part[width + i];
      }
    }
    return;
  }

  // Row-major: one row of `inner` elements per sample and channel.
  const int64_t slices =
      std::clamp<int64_t>(std::min(64 / channels, channels * batch * inner / kWork), 1, batch);
  Numbers parts(static_cast<size_t>(2 * slices * channels));
  const int64_t work = std::max<int64_t>(1, per_channel() / slices);
  parallel_for(slices * channels, std::max<int64_t>(1, kWork / work), [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t s = task / channels, c = task % channels;
      ChannelParams p = base;
      p.rows = inner;
      p.channels = 1;
      p.shift = shift.data() + c;
      p.sum = parts.data() + 2 * task;
      p.product = p.sum + 1;
      for (int64_t n = batch * s / slices; n < batch * (s + 1) / slices; ++n) {
        const int64_t at = (n * channels + c) * inner * item;
        p.x = xs + at;
        p.g = gs ? gs + at : nullptr;
        kernel(p);
      }
    }
  });
  for (int64_t task = 0; task < slices * channels; ++task) {
    const auto c = static_cast<size_t>(task % channels);
    sum[c] += parts[static_cast<size_t>(2 * task)];
    product[c] += parts[static_cast<size_t>(2 * task + 1)];
  }
}

void Channels::apply(void (*kernel)(const ChannelParams&), const void* x, const void* g, void* y,
                     const Numbers (&numbers)[4]) const {
  const int64_t batch = shape_.batch, channels = shape_.channels, inner = shape_.inner;
  const auto item = static_cast<int64_t>(item_size(shape_.dtype));
  const auto* xs = static_cast<const char*>(x);
  const auto* gs = static_cast<const char*>(g);
  auto* ys = static_cast<char*>(y);
  const int64_t rows = per_channel();
  const int64_t times = shape_.columns ? std::min(rows_in_one(channels), rows) : 1, width = times * channels;
  const DType compute = compute_type(shape_.dtype);
  const auto number = static_cast<int64_t>(item_size(compute));
  const Tensor table = empty(Dims{4, width}, compute);
  dispatch_floating(compute, "batch_norm", [&]<class T>() {
    for (int64_t k = 0; k < 4; ++k) repeat_into(numbers[k], times, table.mutable_data<T>() + k * width);
  });
  const char* values = table.impl()->data();
  const auto set_numbers = [&](ChannelParams& p, int64_t channel) {
    p.mean = values + channel * number;
    p.scale = values + (width + channel) * number;
    p.offset = values + (2 * width + channel) * number;
    p.slope = values + (3 * width + channel) * number;
  };
  if (shape_.columns) {
    const int64_t groups = rows / times;
    ChannelParams base{};
    base.columns = true;
    set_numbers(base, 0);
    const auto run = [&](int64_t row, int64_t count, int64_t neighbours) {
      ChannelParams p = base;
      p.rows = count;
      p.channels = neighbours;
      const int64_t at = row * channels * item;
      p.x = xs + at;
      p.g = gs ? gs + at : nullptr;
      p.y = ys + at;
      kernel(p);
    };
    parallel_for(groups, std::max<int64_t>(1, kWork / width),
                 [&](int64_t begin, int64_t end) { run(begin * times, end - begin, width); });
    if (groups * times < rows) run(groups * times, rows - groups * times, channels);
    return;
  }
  parallel_for(batch * channels, std::max<int64_t>(1, kWork / inner), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      ChannelParams p{};
      p.rows = inner;
      p.channels = 1;
      set_numbers(p, i % channels);
      p.x = xs + i * inner * item;
      p.g = gs ? gs + i * inner * item : nullptr;
      p.y = ys + i * inner * item;
      kernel(p);
    }
  });
}

}  // namespace opsin::cpu
