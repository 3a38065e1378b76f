#include "channels.h"

#include <algorithm>

#include <opsin/ops/copy.h>

#include "core/dispatch.h"
#include "cpu/thread_pool.h"

namespace opsin {

namespace {

constexpr int64_t kWork = 32768;

/// How many dense rows of `channels` make a row that is wide enough for vectors.
int64_t rows_in_one(int64_t channels) { return channels >= 32 ? 1 : 64 / channels; }

template <class T>
void repeat_into(const std::vector<double>& from, int64_t times, T* to) {
  for (int64_t i = 0; i < times; ++i) {
    for (const double value : from) *to++ = static_cast<T>(value);
  }
}

}  // namespace

Channels::Channels(const Tensor& x)
    : hidden_(x.impl()->is_hidden()),
      sizes_(x.sizes()),
      dtype_(x.dtype()),
      batch_(x.size(0)),
      channels_(x.size(1)),
      inner_(1) {
  for (int64_t d = 2; d < x.dim(); ++d) inner_ *= x.size(d);
  columns_ = hidden_ || inner_ == 1;
}

Tensor Channels::empty_like_x() const {
  return hidden_ ? empty_channels_last(sizes_, dtype_) : empty(sizes_, dtype_);
}

Tensor Channels::aligned(const Tensor& t) const {
  if (t.is_contiguous() && t.dtype() == dtype_ && t.impl()->is_hidden() == hidden_) return t;
  return copy_(empty_like_x(), t);
}

std::vector<double> Channels::first_elements(const Tensor& x) const {
  std::vector<double> first(static_cast<size_t>(channels_));
  dispatch_floating(dtype_, "batch_norm", [&]<class S>() {
    const auto* data = reinterpret_cast<const S*>(x.impl()->physical_data());
    for (int64_t c = 0; c < channels_; ++c) {
      first[static_cast<size_t>(c)] =
          static_cast<double>(static_cast<compute_t<S>>(data[columns_ ? c : c * inner_]));
    }
  });
  return first;
}

void Channels::sums(const Tensor& x, const Tensor& g, const std::vector<double>& shift,
                    std::vector<double>& sum, std::vector<double>& product) const {
  const auto kernel = OPSIN_ISA_SELECT(cpu::norm_table).sums[static_cast<int>(dtype_)];
  const auto item = static_cast<int64_t>(item_size(dtype_));
  const char* xs = x.impl()->physical_data();
  const char* gs = g.defined() ? g.impl()->physical_data() : nullptr;
  sum.assign(static_cast<size_t>(channels_), 0);
  product.assign(static_cast<size_t>(channels_), 0);
  if (per_channel() == 0 || channels_ == 0) return;
  cpu::ChannelParams base{};
  base.columns = columns_;

  if (columns_) {
    const int64_t rows = per_channel();
    const int64_t times = std::min(rows_in_one(channels_), rows), width = times * channels_;
    const int64_t groups = rows / times;
    const int64_t slices = std::clamp<int64_t>(rows * channels_ / kWork, 1, std::min<int64_t>(groups, 64));
    std::vector<double> shifts(static_cast<size_t>(width)), parts(static_cast<size_t>(2 * slices * width));
    repeat_into(shift, times, shifts.data());
    cpu::parallel_for(slices, 1, [&](int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; ++s) {
        const int64_t from = groups * s / slices, to = groups * (s + 1) / slices;
        cpu::ChannelParams p = base;
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
        p.channels = channels_;
        p.x = xs + groups * width * item;
        p.g = gs ? gs + groups * width * item : nullptr;
        kernel(p);
      }
    });
    for (int64_t s = 0; s < slices; ++s) {
      const double* part = parts.data() + 2 * s * width;
      for (int64_t i = 0; i < width; ++i) {
        const auto c = static_cast<size_t>(i % channels_);
        sum[c] += part[i];
        product[c] += part[width + i];
      }
    }
    return;
  }

  // Row-major: one row of `inner_` elements per sample and channel.
  const int64_t slices =
      std::clamp<int64_t>(std::min(64 / channels_, channels_ * batch_ * inner_ / kWork), 1, batch_);
  std::vector<double> parts(static_cast<size_t>(2 * slices * channels_));
  const int64_t work = std::max<int64_t>(1, per_channel() / slices);
  cpu::parallel_for(slices * channels_, std::max<int64_t>(1, kWork / work), [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t s = task / channels_, c = task % channels_;
      cpu::ChannelParams p = base;
      p.rows = inner_;
      p.channels = 1;
      p.shift = shift.data() + c;
      p.sum = parts.data() + 2 * task;
      p.product = p.sum + 1;
      for (int64_t n = batch_ * s / slices; n < batch_ * (s + 1) / slices; ++n) {
        const int64_t at = (n * channels_ + c) * inner_ * item;
        p.x = xs + at;
        p.g = gs ? gs + at : nullptr;
        kernel(p);
      }
    }
  });
  for (int64_t task = 0; task < slices * channels_; ++task) {
    const auto c = static_cast<size_t>(task % channels_);
    sum[c] += parts[static_cast<size_t>(2 * task)];
    product[c] += parts[static_cast<size_t>(2 * task + 1)];
  }
}

void Channels::apply(void (*kernel)(const cpu::ChannelParams&), const Tensor& x, const Tensor& g,
                     const Tensor& y, const std::vector<double> (&numbers)[4]) const {
  if (per_channel() == 0 || channels_ == 0) return;
  const auto item = static_cast<int64_t>(item_size(dtype_));
  const char* xs = x.impl()->physical_data();
  const char* gs = g.defined() ? g.impl()->physical_data() : nullptr;
  char* ys = y.impl()->physical_data();
  const int64_t rows = per_channel();
  const int64_t times = columns_ ? std::min(rows_in_one(channels_), rows) : 1, width = times * channels_;
  const DType compute = compute_type(dtype_);
  const auto number = static_cast<int64_t>(item_size(compute));
  const Tensor table = empty(Dims{4, width}, compute);
  dispatch_floating(compute, "batch_norm", [&]<class T>() {
    for (int64_t k = 0; k < 4; ++k) repeat_into(numbers[k], times, table.mutable_data<T>() + k * width);
  });
  const char* values = table.impl()->data();
  const auto set_numbers = [&](cpu::ChannelParams& p, int64_t channel) {
    p.mean = values + channel * number;
    p.scale = values + (width + channel) * number;
    p.offset = values + (2 * width + channel) * number;
    p.slope = values + (3 * width + channel) * number;
  };
  if (columns_) {
    const int64_t groups = rows / times;
    cpu::ChannelParams base{};
    base.columns = true;
    set_numbers(base, 0);
    const auto run = [&](int64_t row, int64_t count, int64_t channels) {
      cpu::ChannelParams p = base;
      p.rows = count;
      p.channels = channels;
      const int64_t at = row * channels_ * item;
      p.x = xs + at;
      p.g = gs ? gs + at : nullptr;
      p.y = ys + at;
      kernel(p);
    };
    cpu::parallel_for(groups, std::max<int64_t>(1, kWork / width),
                      [&](int64_t begin, int64_t end) { run(begin * times, end - begin, width); });
    if (groups * times < rows) run(groups * times, rows - groups * times, channels_);
    return;
  }
  cpu::parallel_for(batch_ * channels_, std::max<int64_t>(1, kWork / inner_),
                    [&](int64_t begin, int64_t end) {
                      for (int64_t i = begin; i < end; ++i) {
                        cpu::ChannelParams p{};
                        p.rows = inner_;
                        p.channels = 1;
                        set_numbers(p, i % channels_);
                        p.x = xs + i * inner_ * item;
                        p.g = gs ? gs + i * inner_ * item : nullptr;
                        p.y = ys + i * inner_ * item;
                        kernel(p);
                      }
                    });
}

}  // namespace opsin
