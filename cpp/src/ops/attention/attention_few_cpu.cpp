// Attention of a few queries on the CPU: all queries that share a head of keys meet a block of keys after the
// other, so that keys and values are read once.
#include "attention_few_kernels.h"
#include "attention_tiles_cpu.h"

#include <cmath>
#include <limits>

#include "cpu/thread_pool.h"

namespace opsin::attention {

namespace {

bool is_by_rows(const AttentionMatrix& x) { return x.col == 1; }

bool is_few(const AttentionParams& p) {
  // What is added to scores is read here in the type of computation.
  const bool mask = p.mask_kind != AttentionMask::kAdded || p.dtype == kFloat32 || p.dtype == kFloat64;
  // Panels of keys that several heads share repay tiles that are half full.
  const bool few =
      p.queries <= kFewQueries && (p.queries <= 4 || p.heads / p.kv_heads * p.queries <= kFewQueries);
  return few && !p.causal && p.least == 0 && mask && p.depth > 0 && p.value_depth > 0 &&
         is_by_rows(p.query) && is_by_rows(p.key) && is_by_rows(p.value);
}

/// Vectors of a few queries, filled up with zeros.
template <class T>
struct Vectors {
  int64_t columns, stride;
  cpu::Scratch<T> memory;

  explicit Vectors(int64_t columns_)
      : columns(columns_), stride(round_up(columns_, kFewColumns)), memory(kFewQueries * stride) {
    clear();
  }
  void clear() { std::fill_n(memory.get(), kFewQueries * stride, T(0)); }
  T* row(int64_t i) const { return memory.get() + i * stride; }
  void multiply(int64_t i, T by) const {
    for (int64_t c = 0; c < columns; ++c) row(i)[c] *= by;
  }
};

/// Queries [first, first + count) of those that share a head of keys.
template <class T>
class Few {
 public:
  explicit Few(const AttentionParams& p)
      : p_(p),
        gemm_(Gemm::of(p.dtype)),
        table_(OPSIN_ISA_SELECT(cpu::attention_few_table)),
        query_(p.depth),
        out_(p.value_depth),
        scores_(kFewQueries * kFewKeys),
        grads_(kFewQueries * kFewKeys) {}

  void set(int64_t batch, int64_t kv_head, int64_t first) {
    batch_ = batch;
    kv_head_ = kv_head;
    first_ = first;
    count_ = std::min(kFewQueries, p_.heads / p_.kv_heads * p_.queries - first);
    load(p_.query, query_);
    for (int64_t i = 0; i < count_; ++i) query_.multiply(i, static_cast<T>(p_.scale));
  }

  void forward() {
    T max[kFewQueries], sum[kFewQueries] = {};
    std::fill_n(max, kFewQueries, -std::numeric_limits<T>::infinity());
    out_.clear();
    for (int64_t k = 0; k < p_.keys; k += kFewKeys) {
      const cpu::AttentionFew values = few(p_.value, k, out_, scores_.get());
      score(k);
      for (int64_t i = 0; i < count_; ++i) {
        const auto factor = static_cast<T>(
            table_.softmax[kType](scores_.get() + i * kFewKeys, values.count, max + i, sum + i));
        if (k > 0 && factor != T(1)) out_.multiply(i, factor);
      }
      table_.add[dtype()](values);
    }
    for (int64_t i = 0; i < count_; ++i) {
      // Infinity where nothing was seen, so that the gradients of such a row are zeros.
      static_cast<T*>(p_.log_sum)[number(i)] =
          sum[i] == 0 ? std::numeric_limits<T>::infinity() : max[i] + std::log(sum[i]);
      out_.multiply(i, sum[i] == 0 ? T(0) : 1 / sum[i]);
      gemm_.stored.narrow(out_.row(i), const_cast<char*>(place(p_.out, i, gemm_.stored.storage)),
                          p_.value_depth);
    }
  }

  void backward(const AttentionBackwardParams& p, Vectors<T>& grad_query) {
    load(p.grad_out, out_);
    grad_query.clear();
    for (int64_t k = 0; k < p.keys; k += kFewKeys) {
      score(k);
      const int64_t keys = std::min(kFewKeys, p.keys - k);
      table_.dot[dtype()](few(p.value, k, out_, grads_.get()));
      for (int64_t i = 0; i < count_; ++i) {
        table_.slope[kType](scores_.get() + i * kFewKeys, grads_.get() + i * kFewKeys, keys,
                            static_cast<const T*>(p.log_sum)[number(i)],
                            static_cast<const T*>(p.delta)[number(i)]);
      }
      if (p.grad_query.data) table_.add[dtype()](few(p.key, k, grad_query, grads_.get()));
      if (p.grad_key.data)
        table_.outer[kType](few(p.grad_key, k, query_, grads_.get(), sizeof(T)), first_ > 0);
      if (p.grad_value.data)
        table_.outer[kType](few(p.grad_value, k, out_, scores_.get(), sizeof(T)), first_ > 0);
    }
    if (!p.grad_query.data) return;
    for (int64_t i = 0; i < count_; ++i) {
      grad_query.multiply(i, static_cast<T>(p.scale));
      std::copy_n(grad_query.row(i), p.depth,
                  reinterpret_cast<T*>(const_cast<char*>(place(p.grad_query, i, sizeof(T)))));
    }
  }

 private:
  static constexpr int kType = sizeof(T) == 8 ? 1 : 0;

  int dtype() const { return static_cast<int>(p_.dtype); }
  int64_t head(int64_t i) const { return kv_head_ * (p_.heads / p_.kv_heads) + (first_ + i) / p_.queries; }
  int64_t number(int64_t i) const {
    return (batch_ * p_.heads + head(i)) * p_.queries + (first_ + i) % p_.queries;
  }
  /// The row of query i.
  const char* place(const AttentionMatrix& x, int64_t i, int64_t item) const {
    return head_of(x, batch_, head(i), item) + (first_ + i) % p_.queries * x.row * item;
  }
  void load(const AttentionMatrix& x, const Vectors<T>& to) const {
    for (int64_t i = 0; i < count_; ++i)
      gemm_.stored.widen(place(x, i, gemm_.stored.storage), to.row(i), to.columns);
  }
  cpu::AttentionFew few(const AttentionMatrix& x, int64_t key, const Vectors<T>& vectors, T* products,
                        int64_t item = 0) const {
    if (item == 0) item = gemm_.stored.storage;
    return {head_of(x, batch_, kv_head_, item) + key * x.row * item,
            std::min(kFewKeys, p_.keys - key),
            x.row,
            vectors.columns,
            count_,
            vectors.memory.get(),
            vectors.stride,
            products};
  }
  void score(int64_t key) {
    const cpu::AttentionFew keys = few(p_.key, key, query_, scores_.get());
    table_.dot[dtype()](keys);
    if (p_.mask_kind == AttentionMask::kNone) return;
    for (int64_t i = 0; i < count_; ++i) {
      const int64_t at = batch_ / p_.mask_inner * p_.mask.batch +
                         batch_ % p_.mask_inner * p_.mask_inner_stride + head(i) * p_.mask.head +
                         (first_ + i) % p_.queries * p_.mask.row + key * p_.mask.col;
      T* scores = scores_.get() + i * kFewKeys;
      for (int64_t j = 0; j < keys.count; ++j) {
        if (p_.mask_kind == AttentionMask::kAdded) {
          scores[j] += static_cast<const T*>(p_.mask.data)[at + j * p_.mask.col];
        } else if (!static_cast<const bool*>(p_.mask.data)[at + j * p_.mask.col]) {
          scores[j] = -std::numeric_limits<T>::infinity();
        }
      }
    }
  }

  const AttentionParams& p_;
  const Gemm gemm_;
  const cpu::AttentionFewTable& table_;
  Vectors<T> query_, out_;
  cpu::Scratch<T> scores_, grads_;
  int64_t batch_ = 0, kv_head_ = 0, first_ = 0, count_ = 0;
};

/// A few chunks for every thread.
int64_t grain_of(int64_t count) { return ceil_div(count, 8 * static_cast<int64_t>(cpu::num_threads())); }

template <class T>
void forward_as(const AttentionParams& p) {
  const int64_t parts = ceil_div(p.heads / p.kv_heads * p.queries, kFewQueries);
  const int64_t count = p.batch * p.kv_heads * parts;
  cpu::parallel_for(count, grain_of(count), [&](int64_t begin, int64_t end) {
    Few<T> few(p);
    for (int64_t item = begin; item < end; ++item) {
      few.set(item / parts / p.kv_heads, item / parts % p.kv_heads, item % parts * kFewQueries);
      few.forward();
    }
  });
}

template <class T>
void backward_as(const AttentionBackwardParams& p) {
  const int64_t count = p.batch * p.kv_heads;
  cpu::parallel_for(count, grain_of(count), [&](int64_t begin, int64_t end) {
    Few<T> few(p);
    Vectors<T> grad_query(p.depth);
    for (int64_t item = begin; item < end; ++item) {
      for (int64_t first = 0; first < p.heads / p.kv_heads * p.queries; first += kFewQueries) {
        few.set(item / p.kv_heads, item % p.kv_heads, first);
        few.backward(p, grad_query);
      }
    }
  });
}

}  // namespace

bool forward_few(const AttentionParams& p) {
  if (!is_few(p)) return false;
  p.dtype == kFloat64 ? forward_as<double>(p) : forward_as<float>(p);
  return true;
}

bool backward_few(const AttentionBackwardParams& p) {
  if (!is_few(p) || p.grad_mask || !is_by_rows(p.grad_out)) return false;
  p.dtype == kFloat64 ? backward_as<double>(p) : backward_as<float>(p);
  return true;
}

}  // namespace opsin::attention
