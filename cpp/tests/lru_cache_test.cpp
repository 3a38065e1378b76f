// The cache of plans.
#include "cuda/lru_cache.h"

#include <gtest/gtest.h>

namespace opsin::cuda {
namespace {

struct Key {
  int32_t a = 0, b = 0, c = 0;
  bool operator==(const Key&) const = default;
};

TEST(LruCache, ForgetsWhatWasNotUsedForLongest) {
  LruCache<Key, int> cache(2);
  EXPECT_EQ(cache.find({1}), nullptr);
  cache.insert({1}, 10);
  cache.insert({2}, 20);
  EXPECT_EQ(*cache.find({1}), 10);
  cache.insert({3}, 30);
  EXPECT_EQ(cache.find({2}), nullptr);
  EXPECT_EQ(*cache.find({1}), 10);
  EXPECT_EQ(*cache.find({3}), 30);
  EXPECT_EQ(cache.size(), 2u);
}

TEST(LruCache, EveryFieldCounts) {
  LruCache<Key, int> cache(100);
  int value = 0;
  for (const Key& key : {Key{1, 0, 0}, Key{0, 1, 0}, Key{0, 0, 1}, Key{1, 0, 1}}) {
    ASSERT_EQ(cache.find(key), nullptr);
    cache.insert(key, value++);
  }
  EXPECT_EQ(*cache.find({0, 0, 1}), 2);
  EXPECT_NE(HashBytes<Key>{}({0, 0, 1}), HashBytes<Key>{}({1, 0, 0}));
}

}  // namespace
}  // namespace opsin::cuda
