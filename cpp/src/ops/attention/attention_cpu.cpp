// Attention on the CPU. A block of queries meets one block of keys after the other; the tile of scores is the
// product K Q^T, whose rows are keys (attention_kernels.h says why). A tile is read as it lies by the
// products that sum over keys.
#include "attention_few_kernels.h"
#include "attention_tiles_cpu.h"
#include "ops/random/random_kernels.h"

#include <cmath>
#include <limits>

#include "core/dispatch.h"
#include "cpu/thread_pool.h"

namespace opsin {

namespace attention {

template <class T>
void Scores<T>::draw(uint64_t seed, uint64_t offset, int64_t blocks) {
  OPSIN_ISA_SELECT(cpu::random_table).words(seed, offset, blocks, words_.get());
}
template <class T>
void Scores<T>::keep(int64_t count, T* values) {
  OPSIN_ISA_SELECT(cpu::random_table)
      .dropout[static_cast<int>(dtype_of<T>)](words_.get(), count, p_.least, p_.kept_scale, values, values);
}

namespace {

/// Chunks of `count` tasks of which `inner` neighbours share panels.
int64_t grain_of(int64_t count, int64_t inner) {
  const int64_t even = ceil_div(count, 8 * static_cast<int64_t>(cpu::num_threads()));
  return even >= inner ? round_up(even, inner) : even;
}

/// The softmax of a block of queries times the values.
template <class T>
class Forward {
 public:
  Forward(const AttentionParams& p, const Gemm& gemm)
      : p_(p),
        gemm_(gemm),
        table_(OPSIN_ISA_SELECT(cpu::attention_table)),
        scores_(p, gemm),
        values_(gemm, Panels::kDeep, scores_.keys, p.value_depth),
        weights_(gemm, scores_.keys.size, scores_.row, true, false),
        out_(scores_.queries.size * p.value_depth),
        max_(scores_.row),
        sum_(scores_.row),
        factor_(scores_.row) {}

  /// Query blocks of all heads in order.
  void run(int64_t begin, int64_t end) {
    const int64_t group = p_.heads / p_.kv_heads;
    int64_t last_head = -1;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t head = item / scores_.queries.count % p_.heads;
      const int64_t batch = item / scores_.queries.count / p_.heads;
      const int64_t number = batch * p_.heads + head;
      if (number != last_head) {
        if (last_head < 0 || number / group != last_head / group) {
          scores_.set_key_head(batch, head / group);
          values_.set(head_of(p_.value, batch, head / group, gemm_.stored.storage), p_.value.row,
                      p_.value.col);
        }
        scores_.set_query_head(batch, head);
        last_head = number;
      }
      run_block(batch, head, item % scores_.queries.count);
    }
  }

 private:
  void run_block(int64_t batch, int64_t head, int64_t i) {
    constexpr int kType = Scores<T>::kType;
    const int64_t queries = scores_.queries.length(i);
    T *out = out_.get(), *max = max_.get(), *sum = sum_.get(), *factor = factor_.get();
    std::fill_n(out, queries * p_.value_depth, T(0));
    std::fill_n(max, scores_.row, -std::numeric_limits<T>::infinity());
    std::fill_n(sum, scores_.row, T(0));
    for (int64_t k = 0; k < scores_.keys.count && !scores_.is_hidden(i, k); ++k) {
      scores_.for_parts(i, k, [&](const Part& part) {
        const int64_t first = part.query;
        T* tile = scores_.tile(i, k, part);
        table_.softmax[kType](
            {tile + first, part.keys, part.columns, scores_.row, max + first, sum + first, factor + first});
        if (p_.least != 0) {
          for (int64_t j = 0; j < part.keys; ++j) scores_.drop(i, k, part, j, tile);
        }
        T* rows = out + first * p_.value_depth;
        if (k > 0) table_.multiply_rows[kType](rows, part.queries, p_.value_depth, factor + first);
        weights_.set(tile, part, 1);
        weights_.add_over_keys(part, p_.value_depth, values_.block(k), scores_.keys.length(k), rows,
                               p_.value_depth);
      });
    }
    T* log_sum =
        static_cast<T*>(p_.log_sum) + (batch * p_.heads + head) * p_.queries + scores_.queries.begin(i);
    for (int64_t j = 0; j < queries; ++j) {
      // Infinity where nothing was seen, so that the gradients of such a row are zeros.
      log_sum[j] = sum[j] == 0 ? std::numeric_limits<T>::infinity() : max[j] + std::log(sum[j]);
      factor[j] = sum[j] == 0 ? T(0) : 1 / sum[j];
    }
    table_.multiply_rows[kType](out, queries, p_.value_depth, factor);
    char* to = const_cast<char*>(head_of(p_.out, batch, head, gemm_.stored.storage));
    for (int64_t j = 0; j < queries; ++j) {
      gemm_.stored.narrow(out + j * p_.value_depth,
                          to + (scores_.queries.begin(i) + j) * p_.out.row * gemm_.stored.storage,
                          p_.value_depth);
    }
  }

  const AttentionParams& p_;
  const Gemm& gemm_;
  const cpu::AttentionTable& table_;
  Scores<T> scores_;
  Panels values_;
  Operand<T> weights_;
  cpu::Scratch<T> out_, max_, sum_, factor_;
};

/// The gradients. Each element is summed in one order, whichever of the plans below asks for it: keys in
/// order for queries and mask; heads of the query, then queries in order for keys and values.
template <class T>
class Gradients {
 public:
  Gradients(const AttentionBackwardParams& p, const Gemm& gemm, bool to_queries, bool to_keys, bool to_mask)
      : p_(p),
        gemm_(gemm),
        table_(OPSIN_ISA_SELECT(cpu::attention_table)),
        to_queries_(to_queries && p.grad_query.data),
        to_key_(to_keys && p.grad_key.data),
        to_value_(to_keys && p.grad_value.data),
        to_mask_(to_mask),
        grad_mask_(static_cast<T*>(p.grad_mask)),
        scores_(p, gemm),
        values_left_(gemm, Panels::kLeft, scores_.keys, p.value_depth),
        grads_right_(gemm, Panels::kRight, scores_.queries, p.value_depth),
        keys_deep_(gemm, Panels::kDeep, scores_.keys, p.depth, to_queries_),
        queries_deep_(gemm, Panels::kDeep, scores_.queries, p.depth, to_key_),
        grads_deep_(gemm, Panels::kDeep, scores_.queries, p.value_depth, to_value_),
        grads_(scores_.keys.size * scores_.row),
        weights_(gemm, scores_.keys.size, scores_.row, false, to_value_),
        slopes_(gemm, scores_.keys.size, scores_.row, to_queries_, to_key_),
        log_sum_(scores_.row),
        delta_(scores_.row) {}

  const Blocks& queries() const { return scores_.queries; }
  const Blocks& keys() const { return scores_.keys; }

  void set_key_head(int64_t batch, int64_t head) {
    if (key_head_ == batch * p_.kv_heads + head) return;
    key_head_ = batch * p_.kv_heads + head;
    const int64_t item = gemm_.stored.storage;
    scores_.set_key_head(batch, head);
    values_left_.set(head_of(p_.value, batch, head, item), p_.value.row, p_.value.col);
    keys_deep_.set(head_of(p_.key, batch, head, item), p_.key.row, p_.key.col);
  }
  void set_query_head(int64_t batch, int64_t head) {
    if (query_head_ == batch * p_.heads + head) return;
    query_head_ = batch * p_.heads + head;
    const int64_t item = gemm_.stored.storage;
    const char* grad = head_of(p_.grad_out, batch, head, item);
    batch_ = batch;
    head_ = head;
    scores_.set_query_head(batch, head);
    queries_deep_.set(head_of(p_.query, batch, head, item), p_.query.row, p_.query.col);
    grads_right_.set(grad, p_.grad_out.row, p_.grad_out.col);
    grads_deep_.set(grad, p_.grad_out.row, p_.grad_out.col);
  }

  /// Adds to another tensor of the shape of the gradient of the mask.
  void set_grad_mask(T* grad_mask) { grad_mask_ = grad_mask; }

  /// What query block i and key block k of the current heads add.
  void run(int64_t i, int64_t k) {
    if (scores_.is_hidden(i, k)) return;
    load_rows(i);
    scores_.for_parts(i, k, [&](const Part& part) { run_part(i, k, part); });
    if (!to_value_ && !to_key_) return;
    scores_.for_parts(i, k, [&](const Part& part) {
      if (part.first_key == part.keys) return;
      if (to_value_) add_rows(i, k, part, weights_, p_.value_depth, grads_deep_.block(i), p_.grad_value);
      if (to_key_) add_rows(i, k, part, slopes_, p_.depth, scores_.scaled(queries_deep_, i), p_.grad_key);
    });
  }

 private:
  int64_t group() const { return p_.heads / p_.kv_heads; }
  static T* row_of(const AttentionMatrix& x, int64_t batch, int64_t head, int64_t row) {
    return static_cast<T*>(const_cast<void*>(x.data)) + batch * x.batch + head * x.head + row * x.row;
  }
  void run_part(int64_t i, int64_t k, const Part& part) {
    constexpr int kType = Scores<T>::kType;
    const int64_t row = scores_.row;
    T* const whole = scores_.tile(i, k, part);
    T *tile = whole + part.query, *grads = grads_.get() + part.query;
    scores_.multiply_part(k, part, p_.value_depth, values_left_, grads_right_.block(i), grads_.get());
    const T *log_sum = log_sum_.get() + part.query, *delta = delta_.get() + part.query;
    if (p_.least == 0) {
      table_.slope[kType]({tile, grads, part.keys, part.columns, row, log_sum, delta});
    } else {
      for (int64_t j = 0; j < part.keys; ++j) {
        scores_.drop(i, k, part, j, grads_.get());
        table_.slope[kType]({tile + j * row, grads + j * row, 1, part.columns, row, log_sum, delta});
        if (to_value_) scores_.drop(i, k, part, j, whole);
      }
    }
    if (to_mask_) add_to_mask(i, k, part);
    if (to_value_) weights_.set(whole, part, 1);
    if (to_queries_ || to_key_) slopes_.set(grads_.get(), part, p_.scale);
    if (to_queries_) {
      slopes_.add_over_keys(part, p_.depth, scores_.scaled(keys_deep_, k), scores_.keys.length(k),
                            row_of(p_.grad_query, batch_, head_, scores_.queries.begin(i) + part.query),
                            p_.grad_query.row);
    }
  }
  /// What the keys of a part get from all queries that see them, which are the last ones.
  void add_rows(int64_t i, int64_t k, const Part& part, const Operand<T>& tile, int64_t n, const char* b,
                const AttentionMatrix& out) {
    tile.add_over_queries(part, scores_.queries.length(i), n, b,
                          row_of(out, batch_, head_ / group(), scores_.keys.begin(k) + part.first_key),
                          out.row);
  }
  void load_rows(int64_t i) {
    const int64_t queries = scores_.queries.length(i);
    const int64_t from = query_head_ * p_.queries + scores_.queries.begin(i);
    std::copy_n(static_cast<const T*>(p_.log_sum) + from, queries, log_sum_.get());
    std::copy_n(static_cast<const T*>(p_.delta) + from, queries, delta_.get());
    std::fill(log_sum_.get() + queries, log_sum_.get() + scores_.row, std::numeric_limits<T>::infinity());
    std::fill(delta_.get() + queries, delta_.get() + scores_.row, T(0));
  }
  void add_to_mask(int64_t i, int64_t k, const Part& part) {
    const int64_t* sizes = p_.mask_sizes;
    const int64_t query_stride = sizes[3] == 1 ? 0 : sizes[4], key_stride = sizes[4] == 1 ? 0 : 1;
    const int64_t outer = sizes[0] == 1 ? 0 : batch_ / p_.mask_inner,
                  inner = sizes[1] == 1 ? 0 : batch_ % p_.mask_inner;
    const int64_t matrix = (outer * sizes[1] + inner) * sizes[2] + (sizes[2] == 1 ? 0 : head_);
    table_.add_to_mask[Scores<T>::kType]({grads_.get() + part.query, part.keys, part.queries, scores_.row,
                                          grad_mask_ + matrix * sizes[3] * sizes[4] +
                                              (scores_.queries.begin(i) + part.query) * query_stride +
                                              scores_.keys.begin(k) * key_stride,
                                          query_stride, key_stride});
  }

  const AttentionBackwardParams& p_;
  const Gemm& gemm_;
  const cpu::AttentionTable& table_;
  bool to_queries_, to_key_, to_value_, to_mask_;
  T* grad_mask_;
  Scores<T> scores_;
  Panels values_left_, grads_right_, keys_deep_, queries_deep_, grads_deep_;
  cpu::Scratch<T> grads_;
  Operand<T> weights_, slopes_;
  cpu::Scratch<T> log_sum_, delta_;
  int64_t batch_ = 0, head_ = 0, key_head_ = -1, query_head_ = -1;
};

/// All that a head of the keys adds.
template <class T>
void run_head(Gradients<T>& gradients, const AttentionBackwardParams& p, int64_t batch, int64_t kv_head) {
  const int64_t group = p.heads / p.kv_heads;
  gradients.set_key_head(batch, kv_head);
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    gradients.set_query_head(batch, head);
    for (int64_t k = 0; k < gradients.keys().count; ++k)
      for (int64_t i = 0; i < gradients.queries().count; ++i) gradients.run(i, k);
  }
}

/// All gradients of a head of the keys at once.
template <class T>
void backward_heads(const AttentionBackwardParams& p, const Gemm& gemm) {
  cpu::parallel_for(p.batch * p.kv_heads, grain_of(p.batch * p.kv_heads, 1), [&](int64_t begin, int64_t end) {
    Gradients<T> gradients(p, gemm, true, true, false);
    for (int64_t item = begin; item < end; ++item)
      run_head(gradients, p, item / p.kv_heads, item % p.kv_heads);
  });
}

/// The heads of keys that share parts of a mask: `parts` of these, each seen by `sharing` heads, whose sum is
/// split into `shares` that depend on the shape alone.
struct MaskSharing {
  int64_t outer, inner, kv_heads;  ///< What shares: 1 where the mask has several.
  int64_t parts, sharing, shares = 1, elements = 1;

  explicit MaskSharing(const AttentionBackwardParams& p)
      : outer(p.mask_sizes[0] == 1 ? p.batch / p.mask_inner : 1),
        inner(p.mask_sizes[1] == 1 ? p.mask_inner : 1),
        kv_heads(p.mask_sizes[2] == 1 ? p.kv_heads : 1),
        sharing(outer * inner * kv_heads) {
    parts = p.batch * p.kv_heads / sharing;
    for (const int64_t size : p.mask_sizes) elements *= size;
    // Tasks for many threads; sums for 4 MB of float.
    constexpr int64_t kTasks = 32, kElements = int64_t{1} << 20;
    const int64_t most = std::min({ceil_div(kTasks, parts), sharing, 1 + kElements / elements});
    if (most * parts >= kTasks / 2) shares = most;
  }
  /// Calls body(batch, kv_head) for a share of those that share a part, in order.
  template <class F>
  void for_heads(const AttentionBackwardParams& p, int64_t part, int64_t share, F&& body) const {
    const int64_t kv_parts = p.kv_heads / kv_heads, inner_parts = p.mask_inner / inner;
    const int64_t kv_part = part % kv_parts, inner_part = part / kv_parts % inner_parts,
                  outer_part = part / kv_parts / inner_parts;
    const int64_t length = ceil_div(sharing, shares);
    for (int64_t i = share * length; i < std::min(sharing, (share + 1) * length); ++i) {
      const int64_t batch =
          (outer_part + i / kv_heads / inner) * p.mask_inner + inner_part + i / kv_heads % inner;
      body(batch, kv_part + i % kv_heads);
    }
  }
};

/// The gradient of the mask with all others: what shares a part of it is a task, or a few whose sums are
/// added up in the end.
template <class T>
void backward_with_mask(const AttentionBackwardParams& p, const Gemm& gemm, const MaskSharing& mask) {
  const int64_t count = mask.parts * mask.shares;
  auto* grad_mask = static_cast<T*>(p.grad_mask);
  cpu::Scratch<T> sums((mask.shares - 1) * mask.elements);
  std::fill_n(sums.get(), (mask.shares - 1) * mask.elements, T(0));
  cpu::parallel_for(count, grain_of(count, 1), [&](int64_t begin, int64_t end) {
    Gradients<T> gradients(p, gemm, true, true, true);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t share = item / mask.parts;
      gradients.set_grad_mask(share == 0 ? grad_mask : sums.get() + (share - 1) * mask.elements);
      mask.for_heads(p, item % mask.parts, share,
                     [&](int64_t batch, int64_t kv_head) { run_head(gradients, p, batch, kv_head); });
    }
  });
  for (int64_t share = 1; share < mask.shares; ++share) {
    const T* sum = sums.get() + (share - 1) * mask.elements;
    for (int64_t i = 0; i < mask.elements; ++i) grad_mask[i] += sum[i];
  }
}

/// For few heads: blocks of queries are tasks, then blocks of keys; both compute the scores.
template <class T>
void backward_blocks(const AttentionBackwardParams& p, const Gemm& gemm) {
  const int64_t group = p.heads / p.kv_heads;
  const Blocks queries(p.queries, kMostQueries<T>), keys(p.keys, kMostKeys<T>);
  const int64_t query_blocks = p.batch * p.heads * queries.count;
  if (p.grad_query.data) {
    cpu::parallel_for(query_blocks, grain_of(query_blocks, queries.count), [&](int64_t begin, int64_t end) {
      Gradients<T> gradients(p, gemm, true, false, false);
      for (int64_t item = begin; item < end; ++item) {
        const int64_t head = item / queries.count % p.heads, batch = item / queries.count / p.heads;
        gradients.set_key_head(batch, head / group);
        gradients.set_query_head(batch, head);
        for (int64_t k = 0; k < keys.count; ++k) gradients.run(item % queries.count, k);
      }
    });
  }
  if (!p.grad_key.data && !p.grad_value.data) return;
  const int64_t key_blocks = p.batch * p.kv_heads * keys.count;
  cpu::parallel_for(key_blocks, grain_of(key_blocks, keys.count), [&](int64_t begin, int64_t end) {
    Gradients<T> gradients(p, gemm, false, true, false);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t kv_head = item / keys.count % p.kv_heads, batch = item / keys.count / p.kv_heads;
      gradients.set_key_head(batch, kv_head);
      for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        gradients.set_query_head(batch, head);
        for (int64_t i = 0; i < queries.count; ++i) gradients.run(i, item % keys.count);
      }
    }
  });
}

/// For large masks that many share: blocks of rows of the mask are tasks, which sum over all that share them.
template <class T>
void backward_mask(const AttentionBackwardParams& p, const Gemm& gemm) {
  const int64_t group = p.heads / p.kv_heads;
  const Blocks queries(p.queries, kMostQueries<T>);
  const int64_t* sizes = p.mask_sizes;
  const int64_t rows = sizes[3] == 1 ? 1 : queries.count;
  const int64_t count = sizes[0] * sizes[1] * sizes[2] * rows;
  cpu::parallel_for(count, grain_of(count, rows), [&](int64_t begin, int64_t end) {
    Gradients<T> gradients(p, gemm, false, false, true);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t i = item % rows, head = item / rows % sizes[2], matrix = item / rows / sizes[2];
      const int64_t inner = matrix % sizes[1], outer = matrix / sizes[1];
      for (int64_t batch = 0; batch < p.batch; ++batch) {
        if (sizes[0] > 1 && batch / p.mask_inner != outer) continue;
        if (sizes[1] > 1 && batch % p.mask_inner != inner) continue;
        for (int64_t h = head; h < (sizes[2] == 1 ? p.heads : head + 1); ++h) {
          gradients.set_key_head(batch, h / group);
          gradients.set_query_head(batch, h);
          for (int64_t k = 0; k < gradients.keys().count; ++k)
            for (int64_t q = i; q < (sizes[3] == 1 ? queries.count : i + 1); ++q) gradients.run(q, k);
        }
      }
    }
  });
}

template <class T>
void zero(const AttentionMatrix& x, const AttentionParams& p, int64_t heads, int64_t rows, int64_t columns) {
  if (!x.data) return;
  auto* data = static_cast<T*>(const_cast<void*>(x.data));
  cpu::parallel_for(p.batch * heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      T* head = data + item / heads * x.batch + item % heads * x.head;
      for (int64_t i = 0; i < rows; ++i) std::fill_n(head + i * x.row, columns, T(0));
    }
  });
}

template <class T>
void backward_as(const AttentionBackwardParams& p) {
  if (backward_few(p)) return;
  const Gemm gemm = Gemm::of(p.dtype);
  zero<T>(p.grad_query, p, p.heads, p.queries, p.depth);
  zero<T>(p.grad_key, p, p.kv_heads, p.keys, p.depth);
  zero<T>(p.grad_value, p, p.kv_heads, p.keys, p.value_depth);
  const auto threads = static_cast<int64_t>(cpu::num_threads());
  if (p.grad_mask) {
    const MaskSharing mask(p);
    if (mask.shares > 1 || mask.parts >= 2 * threads || threads == 1)
      return backward_with_mask<T>(p, gemm, mask);
    backward_mask<T>(p, gemm);
  }
  const bool all = p.grad_query.data && (p.grad_key.data || p.grad_value.data);
  if (all && (p.batch * p.kv_heads >= 2 * threads || threads == 1)) {
    backward_heads<T>(p, gemm);
  } else {
    backward_blocks<T>(p, gemm);
  }
}

template <class T>
void forward_as(const AttentionParams& p) {
  if (forward_few(p)) return;
  const Gemm gemm = Gemm::of(p.dtype);
  const int64_t blocks = Blocks(p.queries, kMostQueries<T>).count, count = p.batch * p.heads * blocks;
  cpu::parallel_for(count, grain_of(count, blocks),
                    [&](int64_t begin, int64_t end) { Forward<T>(p, gemm).run(begin, end); });
}

}  // namespace
}  // namespace attention

void register_attention_cpu() {
  for (const DType dtype : {kFloat16, kBFloat16, kFloat32, kFloat64}) {
    const bool wide = dtype == kFloat64;
    attention_forward.set(DeviceType::kCPU, dtype,
                          wide ? attention::forward_as<double> : attention::forward_as<float>);
    attention_backward.set(DeviceType::kCPU, dtype,
                           wide ? attention::backward_as<double> : attention::backward_as<float>);
  }
}

}  // namespace opsin
