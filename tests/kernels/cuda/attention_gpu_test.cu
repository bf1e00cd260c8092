// Three implementations of attention give equal bits: decode at every position of a sequence,
// prefill by mma.sync in chunks of any size, and prefill by wgmma (prefill_wgmma_gpu_test compares
// the last one with the reference). All memory that belongs to no token is NaN.
#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "kernels/cuda/attention/decode_attention.h"
#include "kernels/cuda/attention/prefill_attention.h"
#include "kernels/cuda/base/canon.cuh"
#include "tests/kernels/cuda/gpu_test.h"

namespace fathom::kernels::cuda {
namespace {

using gpu_test::Cases;
using gpu_test::CountDifferent;
using gpu_test::DeviceBuffer;
using gpu_test::DTypeOf;
using gpu_test::ElementTypes;
using gpu_test::FewerHeads;
using gpu_test::FillNormal;
using gpu_test::Finish;
using gpu_test::MakeContext;
using gpu_test::Sanitized;
using gpu_test::Seed;
using gpu_test::Stream;

struct Shape {
  int heads, kv_heads, head_dim;
};

template <class T>
__global__ void ScaleKernel(T* x, int64_t count, float factor) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < count) x[i] = Element<T>::Round(Element<T>::Widen(x[i]) * factor);
}

// Copies tokens [tokens][kv_heads][head_dim] into the pages of a plane.
template <class T>
__global__ void ScatterKernel(const T* from, const int32_t* table, int kv_heads, T* plane) {
  const int token = blockIdx.x, head = blockIdx.y, head_dim = blockDim.x;
  const int64_t page = table[token / kBlockTokens];
  plane[((page * kv_heads + head) * kBlockTokens + token % kBlockTokens) * head_dim + threadIdx.x] =
      from[(int64_t{token} * kv_heads + head) * head_dim + threadIdx.x];
}

// One sequence in pages in random order.
template <class T>
class Sequence {
 public:
  Sequence(const Shape& published, int tokens, float query_scale)
      : shape_(FewerHeads(published)),
        tokens_(tokens),
        pages_((tokens + kBlockTokens - 1) / kBlockTokens),
        pool_(pages_ + 4),
        q_(Elements(tokens)),
        keys_(int64_t{pool_} * shape_.kv_heads * kBlockTokens * shape_.head_dim),
        values_(keys_.count()) {
    std::vector<int32_t> order(pool_);
    std::iota(order.begin(), order.end(), 0);
    std::mt19937 random(static_cast<uint32_t>(Seed()) + tokens);
    std::shuffle(order.begin(), order.end(), random);
    order.resize(pages_);
    table_ = std::make_unique<DeviceBuffer<int32_t>>(order);
    const int64_t kv = int64_t{tokens} * shape_.kv_heads * shape_.head_dim;
    DeviceBuffer<T> k(kv), v(kv);
    FillNormal(k, 1.0f, 1);
    FillNormal(v, 1.0f, 2);
    FillNormal(q_, 1.0f, 3);
    ScaleKernel<T>
        <<<(q_.count() + 255) / 256, 256, 0, Stream()>>>(q_.get(), q_.count(), query_scale);
    const dim3 grid(tokens, shape_.kv_heads);
    ScatterKernel<T><<<grid, shape_.head_dim, 0, Stream()>>>(k.get(), table_->get(),
                                                             shape_.kv_heads, keys_.get());
    ScatterKernel<T><<<grid, shape_.head_dim, 0, Stream()>>>(v.get(), table_->get(),
                                                             shape_.kv_heads, values_.get());
    Finish();
  }

  int64_t Elements(int rows) const { return int64_t{rows} * shape_.heads * shape_.head_dim; }

  // Computes every position as a decode row.
  void Decode(DeviceBuffer<T>* out, bool dependent = false) {
    std::vector<int32_t> lengths(tokens_), begins(tokens_), tables;
    const std::vector<int32_t> table = table_->Download();
    int32_t segments = 0;
    for (int p = 0; p < tokens_; ++p) {
      lengths[p] = p + 1;
      begins[p] = segments;
      segments += p / 512 + 1;
      tables.insert(tables.end(), table.begin(), table.end());
    }
    DeviceBuffer<int32_t> length(lengths), begin(begins), all_tables(tables), faults(tokens_),
        arrived(int64_t{tokens_} * shape_.kv_heads);
    DeviceBuffer<float> partial_o(int64_t{segments} * shape_.heads * shape_.head_dim),
        partial_ml(int64_t{segments} * shape_.heads * 2);
    faults.Zero();
    arrived.Zero();
    DecodeAttentionArgs a;
    a.dtype = DTypeOf<T>();
    a.q = q_.get();
    a.keys = keys_.get();
    a.values = values_.get();
    a.block_tables = all_tables.get();
    a.lengths = length.get();
    a.segment_begin = begin.get();
    a.partial_o = partial_o.get();
    a.partial_ml = partial_ml.get();
    a.arrived = arrived.get();
    a.faults = faults.get();
    a.out = out->get();
    a.rows = tokens_;
    a.heads = shape_.heads;
    a.kv_heads = shape_.kv_heads;
    a.head_dim = shape_.head_dim;
    a.table_stride = pages_;
    a.max_segments = (tokens_ + 511) / 512;
    a.pool_blocks = pool_;
    ASSERT_CUDA(DecodeAttention(MakeContext(dependent), a));
    Finish();
    for (const int32_t x : arrived.Download()) ASSERT_EQ(x, 0);
    for (const int32_t x : faults.Download()) ASSERT_EQ(x, 0);
  }

  // Computes the sequence in chunks of `rows`, all in one launch.
  void Prefill(int rows, bool wgmma, DeviceBuffer<T>* out) {
    std::vector<PrefillChunk> chunks;
    for (int begin = 0; begin < tokens_; begin += rows) {
      chunks.push_back({begin, std::min(rows, tokens_ - begin), begin, 0});
    }
    DeviceBuffer<PrefillChunk> device_chunks(chunks);
    DeviceBuffer<int32_t> faults(tokens_), counter(2);
    faults.Zero();
    counter.Zero();
    PrefillAttentionArgs a;
    a.dtype = DTypeOf<T>();
    a.q = q_.get();
    a.keys = keys_.get();
    a.values = values_.get();
    a.block_tables = table_->get();
    a.chunks = chunks;
    a.device_chunks = device_chunks.get();
    a.work_counter = counter.get();
    a.faults = faults.get();
    a.out = out->get();
    a.total_rows = tokens_;
    a.heads = shape_.heads;
    a.kv_heads = shape_.kv_heads;
    a.head_dim = shape_.head_dim;
    a.table_stride = pages_;
    a.pool_blocks = pool_;
    ASSERT_CUDA(wgmma ? PrefillAttentionWgmma(MakeContext(), a)
                      : PrefillAttentionGeneric(MakeContext(), a));
    Finish();
    for (const int32_t x : faults.Download()) ASSERT_EQ(x, 0);
  }

  const DeviceBuffer<T>& q() const { return q_; }
  const DeviceBuffer<T>& keys() const { return keys_; }
  const DeviceBuffer<T>& values() const { return values_; }
  int pool() const { return pool_; }

 private:
  const Shape shape_;
  const int tokens_, pages_, pool_;
  DeviceBuffer<T> q_, keys_, values_;
  std::unique_ptr<DeviceBuffer<int32_t>> table_;
};

template <class T>
class AttentionTest : public testing::Test {};
TYPED_TEST_SUITE(AttentionTest, ElementTypes);

TYPED_TEST(AttentionTest, DecodeIsPrefillAtEveryPosition) {
  using T = TypeParam;
  const Shape shapes[] = {{32, 32, 128}, {56, 8, 128}, {4, 2, 64},   {28, 4, 128},
                          {32, 8, 128},  {6, 6, 64},   {32, 2, 128}, {32, 2, 64}};
  for (const Shape& shape : Cases(shapes)) {
    for (const int tokens : Cases({1, 2, 63, 64, 65, 513, Sanitized() ? 530 : 1100})) {
      if (tokens == 1100 && shape.heads > 32) continue;
      for (const float scale : {0.5f, 4.0f}) {
        Sequence<T> sequence(shape, tokens, scale);
        DeviceBuffer<T> prefill(sequence.Elements(tokens)), decode(prefill.count());
        sequence.Prefill(tokens, false, &prefill);
        sequence.Decode(&decode);
        ASSERT_EQ(CountDifferent(decode.get(), prefill.get(), prefill.count()), 0)
            << shape.heads << "/" << shape.kv_heads << " x " << shape.head_dim << ", " << tokens
            << " tokens, queries x " << scale;
        if (shape.head_dim != 128) continue;
        prefill.Poison();
        sequence.Prefill(tokens, true, &prefill);
        ASSERT_EQ(CountDifferent(decode.get(), prefill.get(), prefill.count()), 0)
            << "wgmma, " << shape.heads << "/" << shape.kv_heads << ", " << tokens << " tokens";
      }
    }
  }
}

TYPED_TEST(AttentionTest, AnyCutIntoChunksIsTheWhole) {
  using T = TypeParam;
  for (const Shape& shape : {Shape{8, 8, 64}, Shape{8, 2, 128}}) {
    Sequence<T> sequence(shape, 700, 2.0f);
    DeviceBuffer<T> whole(sequence.Elements(700)), cut(whole.count());
    sequence.Prefill(700, false, &whole);
    for (const int rows : {1, 7, 64, 100, 500}) {
      cut.Poison();
      sequence.Prefill(rows, false, &cut);
      EXPECT_EQ(CountDifferent(cut.get(), whole.get(), whole.count()), 0) << "chunks of " << rows;
    }
  }
}

TYPED_TEST(AttentionTest, RepeatedLaunchesKeepTheirBits) {
  using T = TypeParam;
  Sequence<T> sequence({32, 8, 128}, 1300, 1.0f);
  DeviceBuffer<T> first(sequence.Elements(1300)), again(first.count());
  sequence.Decode(&first);
  for (int turn = 0; turn < 3; ++turn) {
    again.Poison();
    sequence.Decode(&again, true);
    EXPECT_EQ(CountDifferent(again.get(), first.get(), first.count()), 0);
  }
}

TYPED_TEST(AttentionTest, PaddingRowsAreZeroAndBadBlocksFault) {
  using T = TypeParam;
  const Shape shape = FewerHeads(Shape{4, 2, 128});
  Sequence<T> sequence({4, 2, 128}, 64, 1.0f);
  DeviceBuffer<int32_t> lengths(std::vector<int32_t>{0, 10}), begins(std::vector<int32_t>{0, 0}),
      tables(std::vector<int32_t>{0, sequence.pool()}), faults(2), arrived(4);
  DeviceBuffer<float> partial(64);
  DeviceBuffer<T> out(sequence.Elements(2));
  faults.Zero();
  arrived.Zero();
  DecodeAttentionArgs a;
  a.dtype = DTypeOf<T>();
  a.q = sequence.q().get();
  a.keys = sequence.keys().get();
  a.values = sequence.values().get();
  a.block_tables = tables.get();
  a.lengths = lengths.get();
  a.segment_begin = begins.get();
  a.partial_o = partial.get();
  a.partial_ml = partial.get();
  a.arrived = arrived.get();
  a.faults = faults.get();
  a.out = out.get();
  a.rows = 2;
  a.heads = shape.heads;
  a.kv_heads = shape.kv_heads;
  a.head_dim = shape.head_dim;
  a.table_stride = 1;
  a.max_segments = 1;
  a.pool_blocks = sequence.pool();
  ASSERT_CUDA(DecodeAttention(MakeContext(), a));
  Finish();
  EXPECT_EQ(faults.Download(), (std::vector<int32_t>{0, kFaultBlockRange}));
  const std::vector<T> got = out.Download();
  for (int64_t i = 0; i < sequence.Elements(1); ++i) ASSERT_EQ(gpu_test::ToFloat(got[i]), 0.0f);
}

}  // namespace
}  // namespace fathom::kernels::cuda
