// Blocks of a head on the CPU: their sizes, their operands laid out for the kernels of GEMM, and the products
// of tiles.
#pragma once

#include "attention_kernels.h"

#include <algorithm>
#include <cstring>

#include <opsin/dtype.h>

#include "cpu/kernels/gemm_table.h"
#include "cpu/scratch.h"

namespace opsin::attention {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

/// Queries or keys in blocks of nearly equal size, a multiple of 16; they depend on the shape alone.
struct Blocks {
  int64_t total, size, count;

  Blocks(int64_t total_, int64_t most)
      : total(total_),
        size(round_up(ceil_div(total_, ceil_div(total_, most)), 16)),
        count(ceil_div(total_, size)) {}
  int64_t begin(int64_t i) const { return i * size; }
  int64_t length(int64_t i) const { return std::min(size, total - i * size); }
};

/// A tile of scores has as many queries and keys, for 4 or 8 bytes each.
template <class T>
constexpr int64_t kMostQueries = 512 / sizeof(T);
template <class T>
constexpr int64_t kMostKeys = 1024 / sizeof(T);

/// Queries of a tile on the diagonal of a causal mask that share the last key computed for them: whole panels
/// of every instruction set. Other numbers were not measured.
constexpr int64_t kCausalQueries = 32;

/// Panels of a matrix that are held at once, in bytes.
constexpr int64_t kPanelBytes = int64_t{2} << 20;

/// What reads operands of the storage dtype, and what multiplies panels. With `pairs`, panels and tiles are
/// multiplied as bfloat16, in which the weights and the gradients of the scores are rounded; these are
/// computed in float32, and so are all sums.
struct Gemm {
  const cpu::GemmKernels& stored;
  const cpu::GemmKernels& computed;
  const cpu::AttentionPairs* pairs = nullptr;

  static Gemm of(DType dtype) {
#if defined(__x86_64__)
    if (dtype == kBFloat16 && cpu::isa() >= cpu::Isa::avx512_bf16) {
      const cpu::GemmKernels& kernels = cpu::avx512_bf16::gemm_kernels();
      return {kernels, kernels, &cpu::avx512_bf16::attention_pairs()};
    }
#endif
    const cpu::GemmTable& table = OPSIN_ISA_SELECT(cpu::gemm_table);
    if (dtype == kFloat64) return {table.f64, table.f64};
    return {dtype == kFloat16 ? table.f16 : dtype == kBFloat16 ? table.bf16 : table.f32, table.f32};
  }
  /// Columns that fill vectors.
  int64_t whole_vectors(int64_t columns) const { return round_up(columns, computed.nr / 2); }
  /// Steps of k that panels hold.
  int64_t panel_depth(int64_t depth) const { return round_up(depth, computed.pair); }
  /// Rows of a panel of A: evenly filled tiles.
  int64_t panel_rows(int64_t rows) const { return ceil_div(rows, ceil_div(rows, computed.mr)); }
};

/// Lays out `lanes` lanes of `depth` steps in panels of `height` lanes, `step` apart. Heads lie within rows
/// that are far apart, whose lines nothing foresees: those of the next panel are fetched meanwhile.
inline void pack(const cpu::GemmKernels& kernels, decltype(cpu::GemmKernels::pack_a) lay_out, const char* in,
                 int64_t lane_stride, int64_t depth_stride, int64_t lanes, int64_t depth, int64_t height,
                 int64_t step, char* out) {
  constexpr int64_t line = 64;
  for (int64_t i = 0; i < lanes; i += height) {
    if (depth_stride == 1) {
      for (int64_t j = i + height; j < std::min(lanes, i + 2 * height); ++j) {
        const char* next = in + j * lane_stride * kernels.storage;
        for (int64_t at = 0; at < depth * kernels.storage; at += line) __builtin_prefetch(next + at);
      }
    }
    lay_out({in + i * lane_stride * kernels.storage, lane_stride, depth_stride, std::min(height, lanes - i),
             depth, out, step});
    out += step * round_up(depth, kernels.pair) * kernels.packed;
  }
}

/// The blocks of rows of a matrix as operands of products, packed when they are asked for and kept as long as
/// there is room.
class Panels {
 public:
  enum Role : uint8_t {
    kLeft,   ///< A: the rows of the block.
    kRight,  ///< B^T: the rows of the block.
    kDeep    ///< B: the rows of the block are steps of k.
  };

  /// With `wanted` false, nothing is allocated.
  Panels(const Gemm& gemm, Role role, const Blocks& blocks, int64_t columns, bool wanted = true)
      : gemm_(gemm),
        role_(role),
        blocks_(blocks),
        columns_(columns),
        bytes_(block_bytes()),
        slots_(wanted ? std::clamp<int64_t>(kPanelBytes / bytes_, 1, blocks.count) : 0),
        memory_(slots_ * bytes_),
        held_(slots_) {
    forget();
  }

  /// Another matrix from now on.
  void set(const void* data, int64_t row, int64_t col) {
    data_ = static_cast<const char*>(data);
    row_ = row;
    col_ = col;
    forget();
  }

  /// Panels of block i; the function is called on what was packed anew.
  template <class F>
  const char* block(int64_t i, F&& finish) {
    const int64_t slot = i % slots_;
    char* out = memory_.get() + slot * bytes_;
    if (held_.get()[slot] == i) return out;
    held_.get()[slot] = i;
    const char* in = data_ + blocks_.begin(i) * row_ * gemm_.stored.storage;
    const int64_t rows = blocks_.length(i), nr = gemm_.computed.nr, mr = gemm_.computed.mr;
    const cpu::GemmKernels& stored = gemm_.stored;
    if (role_ == kDeep) {
      pack(stored, stored.pack_b, in, col_, row_, columns_, rows, nr, nr, out);
    } else if (role_ == kRight) {
      pack(stored, stored.pack_b, in, row_, col_, rows, columns_, nr, nr, out);
    } else {
      pack(stored, stored.pack_a, in, row_, col_, rows, columns_, gemm_.panel_rows(rows), mr, out);
    }
    finish(out, bytes_ / gemm_.computed.packed);
    return out;
  }
  const char* block(int64_t i) {
    return block(i, [](char*, int64_t) {});
  }

 private:
  int64_t block_bytes() const {
    const int64_t mr = gemm_.computed.mr, nr = gemm_.computed.nr;
    const int64_t lanes =
        role_ == kDeep ? round_up(columns_, nr) : round_up(blocks_.size, role_ == kLeft ? mr : nr);
    // A pack may write 16 elements beyond its panel.
    const int64_t depth = gemm_.panel_depth(role_ == kDeep ? blocks_.size : columns_);
    return round_up((lanes * depth + 16) * gemm_.computed.packed, 64);
  }
  void forget() { std::fill_n(held_.get(), slots_, int64_t{-1}); }

  const Gemm& gemm_;
  Role role_;
  Blocks blocks_;
  int64_t columns_, bytes_, slots_;
  cpu::Scratch<char> memory_;
  cpu::Scratch<int64_t> held_;
  const char* data_ = nullptr;
  int64_t row_ = 0, col_ = 0;
};

/// c[m, n] = A B of panels, A in panels of `panel_rows`.
inline void multiply_panels(const Gemm& gemm, int64_t m, int64_t n, int64_t depth, const void* a,
                            int64_t panel_rows, const void* b, void* c, int64_t c_row) {
  cpu::GemmBlock g{};
  g.m = m;
  g.n = n;
  g.depth = depth;
  g.panel_rows = panel_rows;
  g.a = a;
  g.a_step = gemm.computed.mr;
  g.a_panel = gemm.computed.mr * gemm.panel_depth(depth);
  g.b = b;
  g.b_step = gemm.computed.nr;
  g.b_panel = gemm.computed.nr * gemm.panel_depth(depth);
  g.c = c;
  g.c_row = c_row;
  g.c_col = 1;
  gemm.computed.block(g);
}

/// c[m, n] += A^T B for a tile A [depth, m] as it lies or by pairs of its rows, which are `a_row` apart, and
/// the first steps of the `b_depth` of B.
inline void add_transposed(const Gemm& gemm, int64_t m, int64_t n, int64_t depth, const void* a,
                           int64_t a_row, const void* b, int64_t b_depth, void* c, int64_t c_row) {
  cpu::GemmBlock g{};
  g.m = m;
  g.n = n;
  g.depth = depth;
  g.panel_rows = gemm.panel_rows(m);
  g.a = a;
  g.a_step = a_row;
  g.a_panel = g.panel_rows * gemm.computed.pair;
  g.b = b;
  g.b_step = gemm.computed.nr;
  g.b_panel = gemm.computed.nr * gemm.panel_depth(b_depth);
  g.c = c;
  g.c_row = c_row;
  g.c_col = 1;
  g.add = true;
  gemm.computed.block(g);
}

inline const char* head_of(const AttentionMatrix& x, int64_t batch, int64_t head, int64_t item) {
  return static_cast<const char*>(x.data) + (batch * x.batch + head * x.head) * item;
}

/// What is computed of a tile: columns for the queries [query, query + queries), and the keys before `keys`,
/// which are all that these see. Keys from `first_key` on are seen by no query before.
struct Part {
  int64_t query, queries, columns;
  int64_t first_key, keys;
};

/// Tiles of scores of one head after the other.
template <class T>
class Scores {
 public:
  Scores(const AttentionParams& p, const Gemm& gemm)
      : p_(p),
        gemm_(gemm),
        table_(OPSIN_ISA_SELECT(cpu::attention_table)),
        queries(p.queries, kMostQueries<T>),
        keys(p.keys, kMostKeys<T>),
        // Rows that do not fall on the same lines of the cache.
        row(round_up(queries.size, 32) + 16),
        key_panels_(gemm, Panels::kLeft, keys, p.depth),
        query_panels_(gemm, Panels::kRight, queries, p.depth),
        tile_(keys.size * row),
        words_(p.least ? row : 0),
        random_(resolve(p.random)) {}

  void set_key_head(int64_t batch, int64_t head) {
    key_panels_.set(head_of(p_.key, batch, head, gemm_.stored.storage), p_.key.row, p_.key.col);
  }
  void set_query_head(int64_t batch, int64_t head) {
    batch_ = batch;
    head_ = head;
    query_panels_.set(head_of(p_.query, batch, head, gemm_.stored.storage), p_.query.row, p_.query.col);
  }

  /// Whether no query of block i sees a key of block k.
  bool is_hidden(int64_t i, int64_t k) const {
    return p_.causal && keys.begin(k) >= queries.begin(i) + queries.length(i);
  }
  /// Calls body(Part) for the parts of the tile of query block i and key block k that are not hidden.
  template <class F>
  void for_parts(int64_t i, int64_t k, F&& body) const {
    const int64_t count = queries.length(i);
    // Query 0 sees as many keys of the block, query 1 one more.
    const int64_t seen = p_.causal ? queries.begin(i) + 1 - keys.begin(k) : keys.length(k);
    int64_t first_key = 0;
    for (int64_t query = 0, step; query < count; query += step) {
      const bool is_all = seen + query >= keys.length(k);
      step = is_all ? count - query : std::min(kCausalQueries, count - query);
      const int64_t last = is_all ? keys.length(k) : std::min(seen + query + step - 1, keys.length(k));
      if (last <= 0) continue;
      body(Part{query, step, gemm_.whole_vectors(step), first_key, last});
      first_key = last;
    }
  }

  /// A tile [keys][row] of which the part is masked scores; columns beyond the queries are finite.
  T* tile(int64_t i, int64_t k, const Part& part) {
    const char* right = scaled(query_panels_, i);
    multiply_part(k, part, p_.depth, key_panels_, right, tile_.get());
    if (gemm_.pairs) {
      for (int64_t j = 0; j < part.keys; ++j)
        table_.multiply[kType](tile_.get() + j * row + part.query, part.columns, p_.scale);
    }
    if (p_.mask_kind != AttentionMask::kNone) mask(i, k, part);
    if (p_.causal) mask_later(i, k, part);
    return tile_.get();
  }
  /// Panels of block i times the scale of the scores; bfloat16, which would be rounded, is left as it is.
  const char* scaled(Panels& panels, int64_t i) const {
    if (gemm_.pairs) return panels.block(i);
    return panels.block(i, [&](char* x, int64_t count) { table_.multiply[kType](x, count, p_.scale); });
  }
  /// The part of the product of the rows of key block k, and those of a query block.
  void multiply_part(int64_t k, const Part& part, int64_t depth, Panels& left, const char* right,
                     T* tile) const {
    multiply_panels(gemm_, part.keys, part.columns, depth, left.block(k), gemm_.panel_rows(keys.length(k)),
                    right + part.query * gemm_.panel_depth(depth) * gemm_.computed.packed, tile + part.query,
                    row);
  }

  /// Zeroes and scales what row `key` of key block k holds for a part of query block i, in each of the tiles.
  template <class... Tiles>
  void drop(int64_t i, int64_t k, const Part& part, int64_t key, Tiles... tiles) {
    const int64_t number =
        ((batch_ * p_.heads + head_) * p_.keys + keys.begin(k) + key) * ceil_div(p_.queries, 4) +
        (queries.begin(i) + part.query) / 4;
    draw(random_.seed, random_.offset + static_cast<uint64_t>(number), ceil_div(part.queries, 4));
    (keep(part.queries, tiles + key * row + part.query), ...);
  }

  static constexpr int kType = sizeof(T) == 8 ? 1 : 0;

 private:
  void draw(uint64_t seed, uint64_t offset, int64_t blocks);
  void keep(int64_t count, T* values);

  void mask(int64_t i, int64_t k, const Part& part) {
    const bool added = p_.mask_kind == AttentionMask::kAdded;
    const int64_t item = added ? gemm_.stored.storage : 1;
    const int64_t matrix = batch_ / p_.mask_inner * p_.mask.batch +
                           batch_ % p_.mask_inner * p_.mask_inner_stride + head_ * p_.mask.head;
    const int64_t at = (queries.begin(i) + part.query) * p_.mask.row + keys.begin(k) * p_.mask.col;
    const cpu::AttentionMaskTile tile{tile_.get() + part.query,
                                      part.keys,
                                      part.queries,
                                      row,
                                      static_cast<const char*>(p_.mask.data) + (matrix + at) * item,
                                      p_.mask.row,
                                      p_.mask.col};
    (added ? table_.add[static_cast<int>(p_.dtype)] : table_.exclude[kType])(tile);
  }
  void mask_later(int64_t i, int64_t k, const Part& part) {
    const int64_t seen = queries.begin(i) + part.query + 1 - keys.begin(k);
    for (int64_t j = std::max<int64_t>(seen, 0); j < part.keys; ++j) {
      std::fill_n(tile_.get() + j * row + part.query, std::min(j + 1 - seen, part.queries),
                  -std::numeric_limits<T>::infinity());
    }
  }

  const AttentionParams& p_;
  const Gemm& gemm_;
  const cpu::AttentionTable& table_;

 public:
  const Blocks queries, keys;
  const int64_t row;

 private:
  Panels key_panels_, query_panels_;
  cpu::Scratch<T> tile_;
  cpu::Scratch<uint32_t> words_;
  PhiloxSeed random_;
  int64_t batch_ = 0, head_ = 0;
};

/// A tile [keys][row] as the products that sum over its keys or its queries read it.
template <class T>
class Operand {
 public:
  Operand(const Gemm& gemm, int64_t keys, int64_t row, bool over_keys, bool over_queries)
      : gemm_(gemm),
        table_(OPSIN_ISA_SELECT(cpu::attention_table)),
        row_(row),
        over_keys_(gemm.pairs && over_keys),
        over_queries_(gemm.pairs && over_queries),
        by_keys_(over_keys_ ? round_up(keys, 2) * row : 0),
        by_queries_(over_queries_ ? keys * row : 0) {}

  /// A part of the tile, times `scale` in pairs.
  void set(const T* tile, const Part& part, double scale) {
    tile_ = tile;
    if constexpr (sizeof(T) == 4) {
      if (!gemm_.pairs) return;
      gemm_.pairs->round({tile + part.query, part.keys, part.columns, row_, static_cast<float>(scale),
                          over_keys_ ? by_keys_.get() + 2 * part.query : nullptr,
                          over_queries_ ? by_queries_.get() + part.query : nullptr});
    }
  }
  /// c[queries of the part, n] += the sums over its keys, the first of the `b_depth` of B.
  void add_over_keys(const Part& part, int64_t n, const void* b, int64_t b_depth, T* c, int64_t c_row) const {
    const void* a = tile_ + part.query;
    if (gemm_.pairs) a = by_keys_.get() + 2 * part.query;
    add_transposed(gemm_, part.queries, n, part.keys, a, row_, b, b_depth, c, c_row);
  }
  /// c[n] of the keys that the part adds += the sums over queries from the part's to the last of the block,
  /// which B has all.
  void add_over_queries(const Part& part, int64_t queries, int64_t n, const char* b, T* c,
                        int64_t c_row) const {
    const int64_t at = part.first_key * row_ + part.query, nr = gemm_.computed.nr;
    const void* a = tile_ + at;
    if (gemm_.pairs) a = by_queries_.get() + at;
    const auto add = gemm_.pairs ? gemm_.pairs->add_rows : table_.add_rows[sizeof(T) == 8];
    add({a, part.keys - part.first_key, row_, queries - part.query,
         b + part.query * nr * gemm_.computed.packed, gemm_.panel_depth(queries) * nr, c, c_row, n});
  }

 private:
  const Gemm& gemm_;
  const cpu::AttentionTable& table_;
  int64_t row_;
  bool over_keys_, over_queries_;
  const T* tile_ = nullptr;
  cpu::Scratch<uint16_t> by_keys_, by_queries_;
};

}  // namespace opsin::attention
