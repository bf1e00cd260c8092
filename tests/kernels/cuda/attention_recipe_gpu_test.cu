// Decode attention, and prefill attention by mma.sync, against the reference and against float64:
// several sequences of different lengths in one launch and alone, chunks of any size from any
// position. All memory that belongs to no token is NaN, and entries of block tables after a row's
// length are no valid blocks.
#include <algorithm>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/cuda/attention/decode_attention.h"
#include "kernels/cuda/attention/prefill_attention.h"
#include "tests/kernels/cuda/attention_reference.cuh"
#include "tests/kernels/cuda/gpu_test.h"

namespace fathom::gpu_test {
namespace {

using kernels::cuda::DecodeAttentionArgs;
using kernels::cuda::kBlockTokens;
using kernels::cuda::kFaultBlockRange;
using kernels::cuda::PrefillAttentionArgs;
using kernels::cuda::PrefillChunk;

constexpr int32_t kNoBlock = 0x7FFFFFF0;

struct Shape {
  int heads, kv_heads, head_dim;
  std::string Name() const {
    return std::to_string(heads) + "/" + std::to_string(kv_heads) + " x " +
           std::to_string(head_dim);
  }
};
constexpr Shape kShapes[] = {{32, 32, 128}, {40, 40, 128}, {56, 8, 128}, {28, 4, 128},
                             {32, 8, 128},  {32, 2, 128},  {4, 2, 64},   {32, 2, 64}};

struct Row {
  int sequence = 0;
  int length = 0;  // Position + 1; 0: padding.
};

// Multiplies by `factor`; tokens 3, 100, 197, ... of a page-major plane also by `outlier`.
template <class T>
__global__ void ScaleKernel(T* x, int64_t count, int width, float factor, float outlier) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    const float f = i / width % 97 == 3 ? factor * outlier : factor;
    x[i] = kernels::cuda::Element<T>::Round(kernels::cuda::Element<T>::Widen(x[i]) * f);
  }
}
// Sets tokens [begin, 64) of a page to NaN.
template <class T>
__global__ void PoisonKernel(T* plane, int page, int begin, int kv_heads, int head_dim) {
  const int token = blockIdx.x, head = blockIdx.y;
  if (token < begin) return;
  auto* const x = reinterpret_cast<uint16_t*>(
      plane + ((int64_t{page} * kv_heads + head) * kBlockTokens + token) * head_dim);
  x[threadIdx.x] = 0xFFFF;
}

struct Values {
  float query_scale = 1, key_outlier = 1, value_outlier = 1;
};

// Sequences in pages in random order, and rows that attend to the first tokens of one of them.
template <class T>
class World {
 public:
  World(const Shape& published, const std::vector<int>& tokens, const std::vector<Row>& rows,
        const Values& values = {})
      : shape_(FewerHeads(published)),
        rows_(rows),
        pool_(4 + std::accumulate(tokens.begin(), tokens.end(), 0,
                                  [](int sum, int t) { return sum + PagesOf(t); })),
        stride_(PagesOf(*std::max_element(tokens.begin(), tokens.end())) + 3),
        q_(int64_t{RowCount()} * RowElements()),
        keys_(int64_t{pool_} * shape_.kv_heads * kBlockTokens * shape_.head_dim),
        values_(keys_.count()) {
    Fill(q_, 1, values.query_scale, 1);
    Fill(keys_, 2, 1, values.key_outlier);
    Fill(values_, 3, 1, values.value_outlier);
    MakePages(tokens);
    MakeRows();
    want_ = std::make_unique<DeviceBuffer<T>>(q_.count());
    EXPECT_CUDA(RefAttention<T>(Stream(), DecodeArgs(want_->get())));
    Finish();
  }

  int RowCount() const { return static_cast<int>(rows_.size()); }
  int64_t RowElements() const { return int64_t{shape_.heads} * shape_.head_dim; }
  const DeviceBuffer<T>& want() const { return *want_; }
  DeviceBuffer<int32_t>& faults() { return *faults_; }
  int pool() const { return pool_; }

  // Sets an entry of a row's table; the reference is computed again.
  void SetEntry(int row, int block, int32_t id) {
    tables_host_[static_cast<size_t>(row) * stride_ + block] = id;
    tables_->Upload(tables_host_);
    EXPECT_CUDA(RefAttention<T>(Stream(), DecodeArgs(want_->get())));
    Finish();
  }

  void CheckDecode(const std::string& what, bool dependent = false, int launches = 1) {
    DeviceBuffer<T> out(q_.count());
    const LaunchContext context = MakeContext(dependent);
    for (int i = 0; i < launches; ++i) ASSERT_CUDA(DecodeAttention(context, DecodeArgs(out.get())));
    Finish();
    ExpectRows(out, 0, RowCount(), what);
    ExpectArrivedIsZero(what);
  }
  // Computes each row in a launch of its own.
  void CheckAlone(const std::string& what) {
    DeviceBuffer<T> out(q_.count());
    DeviceBuffer<int32_t> begin(1);
    begin.Zero();
    for (int r = 0; r < RowCount(); ++r) {
      DecodeAttentionArgs a = DecodeArgs(out.get() + r * RowElements());
      a.q = q_.get() + r * RowElements();
      a.block_tables += int64_t{r} * stride_;
      a.lengths += r;
      a.segment_begin = begin.get();
      a.faults += r;
      a.rows = 1;
      a.max_segments = std::max(1, SegmentsOf(rows_[r].length));
      ASSERT_CUDA(DecodeAttention(MakeContext(), a));
    }
    Finish();
    ExpectRows(out, 0, RowCount(), what + ", alone");
    ExpectArrivedIsZero(what);
  }

  // In a chunk, rows [row_begin, + rows) are consecutive positions of one sequence. No other row of
  // the output may be written.
  void CheckPrefill(const std::vector<PrefillChunk>& chunks, const std::string& what) {
    DeviceBuffer<T> out(q_.count());
    DeviceBuffer<PrefillChunk> device_chunks(chunks);
    DeviceBuffer<int32_t> counter(2);
    counter.Zero();
    PrefillAttentionArgs a;
    a.dtype = DTypeOf<T>();
    a.q = q_.get();
    a.keys = keys_.get();
    a.values = values_.get();
    a.block_tables = tables_->get();
    a.chunks = chunks;
    a.device_chunks = device_chunks.get();
    a.work_counter = counter.get();
    a.faults = faults_->get();
    a.out = out.get();
    a.total_rows = RowCount();
    a.heads = shape_.heads;
    a.kv_heads = shape_.kv_heads;
    a.head_dim = shape_.head_dim;
    a.table_stride = stride_;
    a.pool_blocks = pool_;
    ASSERT_CUDA(PrefillAttentionGeneric(MakeContext(), a));
    Finish();
    std::vector<char> written(rows_.size());
    for (const PrefillChunk& c : chunks) {
      ExpectRows(out, c.row_begin, c.rows, what);
      std::fill_n(written.begin() + c.row_begin, c.rows, 1);
    }
    std::vector<T> x(RowElements());
    for (int r = 0; r < RowCount(); ++r) {
      if (written[r] || rows_[r].length != 0) continue;  // Checking the gaps is enough.
      EXPECT_CUDA(cudaMemcpy(x.data(), out.get() + r * RowElements(), x.size() * sizeof(T),
                             cudaMemcpyDeviceToHost));
      ASSERT_TRUE(std::all_of(x.begin(), x.end(), [](T v) { return std::isnan(ToFloat(v)); }))
          << what << ": row " << r << " is of no chunk and was written";
    }
  }

  void ExpectNoFaults(const std::string& what) const {
    for (const int32_t fault : faults_->Download()) ASSERT_EQ(fault, 0) << what;
  }

  // Softmax in float64.
  std::vector<double> Oracle() const {
    const std::vector<T> q = q_.Download(), k = keys_.Download(), v = values_.Download();
    const int dim = shape_.head_dim, group = shape_.heads / shape_.kv_heads;
    std::vector<double> out(q.size());
    for (size_t unit = 0; unit < rows_.size() * shape_.heads; ++unit) {
      const int r = static_cast<int>(unit) / shape_.heads;
      const int kv_head = static_cast<int>(unit) % shape_.heads / group;
      const auto at = [&](int token) {
        const int64_t page = tables_host_[static_cast<size_t>(r) * stride_ + token / kBlockTokens];
        return ((page * shape_.kv_heads + kv_head) * kBlockTokens + token % kBlockTokens) * dim;
      };
      std::vector<double> s(rows_[r].length);
      double top = -INFINITY, total = 0;
      for (size_t t = 0; t < s.size(); ++t) {
        for (int d = 0; d < dim; ++d) {
          s[t] += double{ToFloat(q[unit * dim + d])} * ToFloat(k[at(static_cast<int>(t)) + d]);
        }
        s[t] /= std::sqrt(static_cast<double>(dim));
        top = std::max(top, s[t]);
      }
      for (double& x : s) total += x = std::exp(x - top);
      for (size_t t = 0; t < s.size(); ++t) {
        for (int d = 0; d < dim; ++d) {
          out[unit * dim + d] += s[t] / total * ToFloat(v[at(static_cast<int>(t)) + d]);
        }
      }
    }
    return out;
  }

 private:
  static int PagesOf(int tokens) { return (tokens + kBlockTokens - 1) / kBlockTokens; }
  static int SegmentsOf(int tokens) { return (tokens + 511) / 512; }

  static void Fill(const DeviceBuffer<T>& to, uint64_t salt, float factor, float outlier) {
    FillNormal(to, 1.0f, salt);
    ScaleKernel<T><<<1024, 256, 0, Stream()>>>(to.get(), to.count(), 128, factor, outlier);
    EXPECT_CUDA(cudaGetLastError());
  }
  void Poison(int page, int begin) {
    const dim3 grid(kBlockTokens, shape_.kv_heads);
    for (T* plane : {keys_.get(), values_.get()}) {
      PoisonKernel<T><<<grid, shape_.head_dim, 0, Stream()>>>(plane, page, begin, shape_.kv_heads,
                                                              shape_.head_dim);
    }
    EXPECT_CUDA(cudaGetLastError());
  }
  void MakePages(const std::vector<int>& tokens) {
    std::vector<int32_t> order(pool_);
    std::iota(order.begin(), order.end(), 0);
    std::mt19937_64 random(Seed());
    std::shuffle(order.begin(), order.end(), random);
    for (int i = 0; i < 4; ++i, order.pop_back()) Poison(order.back(), 0);  // Free pages.
    for (const int t : tokens) {
      const int pages = PagesOf(t);
      pages_.emplace_back(order.end() - pages, order.end());
      order.resize(order.size() - pages);
      if (t % kBlockTokens != 0) Poison(pages_.back().back(), t % kBlockTokens);
    }
  }
  void MakeRows() {
    std::vector<int32_t> lengths, begins;
    tables_host_.assign(rows_.size() * stride_, kNoBlock);
    for (size_t r = 0; r < rows_.size(); ++r) {
      lengths.push_back(rows_[r].length);
      begins.push_back(rows_[r].length == 0 ? 0 : segments_);
      segments_ += SegmentsOf(rows_[r].length);
      max_segments_ = std::max(max_segments_, SegmentsOf(rows_[r].length));
      const std::vector<int32_t>& pages = pages_[rows_[r].sequence];
      std::copy_n(pages.begin(), PagesOf(rows_[r].length), tables_host_.begin() + r * stride_);
    }
    lengths_ = std::make_unique<DeviceBuffer<int32_t>>(lengths);
    begins_ = std::make_unique<DeviceBuffer<int32_t>>(begins);
    tables_ = std::make_unique<DeviceBuffer<int32_t>>(tables_host_);
    const int64_t units = int64_t{std::max(segments_, 1)} * shape_.heads;
    partial_o_ = std::make_unique<DeviceBuffer<float>>(units * shape_.head_dim);
    partial_ml_ = std::make_unique<DeviceBuffer<float>>(units * 2);
    arrived_ = std::make_unique<DeviceBuffer<int32_t>>(int64_t{RowCount()} * shape_.kv_heads);
    faults_ = std::make_unique<DeviceBuffer<int32_t>>(RowCount());
    arrived_->Zero();
    faults_->Zero();
  }
  DecodeAttentionArgs DecodeArgs(T* out) const {
    DecodeAttentionArgs a;
    a.dtype = DTypeOf<T>();
    a.q = q_.get();
    a.keys = keys_.get();
    a.values = values_.get();
    a.block_tables = tables_->get();
    a.lengths = lengths_->get();
    a.segment_begin = begins_->get();
    a.partial_o = partial_o_->get();
    a.partial_ml = partial_ml_->get();
    a.arrived = arrived_->get();
    a.faults = faults_->get();
    a.out = out;
    a.rows = RowCount();
    a.heads = shape_.heads;
    a.kv_heads = shape_.kv_heads;
    a.head_dim = shape_.head_dim;
    a.table_stride = stride_;
    a.max_segments = max_segments_ + 1;  // The bucket of the engine may be larger.
    a.pool_blocks = pool_;
    return a;
  }
  void ExpectRows(const DeviceBuffer<T>& out, int begin, int rows, const std::string& what) const {
    const auto different = [&](int first, int count) {
      const int64_t at = first * RowElements();
      return CountDifferent(out.get() + at, want_->get() + at, count * RowElements());
    };
    if (different(begin, rows) == 0) return;
    int row = begin;
    while (different(row, 1) == 0) ++row;
    FAIL() << shape_.Name() << ", " << what << ": the first is row " << row << ", length "
           << rows_[row].length;
  }
  void ExpectArrivedIsZero(const std::string& what) const {
    for (const int32_t x : arrived_->Download()) ASSERT_EQ(x, 0) << what;
  }

  const Shape shape_;
  const std::vector<Row> rows_;
  const int pool_, stride_;
  int segments_ = 0, max_segments_ = 0;
  std::vector<std::vector<int32_t>> pages_;  // The pages of each sequence.
  std::vector<int32_t> tables_host_;
  DeviceBuffer<T> q_, keys_, values_;
  std::unique_ptr<DeviceBuffer<T>> want_;
  std::unique_ptr<DeviceBuffer<int32_t>> lengths_, begins_, tables_, arrived_, faults_;
  std::unique_ptr<DeviceBuffer<float>> partial_o_, partial_ml_;
};

template <class T>
class AttentionRecipeTest : public testing::Test {};
TYPED_TEST_SUITE(AttentionRecipeTest, ElementTypes);

// Each length is a sequence of its own. Padding rows come last, as in the engine.
TYPED_TEST(AttentionRecipeTest, DecodeOfManySequencesIsTheRecipe) {
  const std::vector<int> lengths = {1,   2,   7,   63,  1777, 64,  65,  128,  257,
                                    511, 512, 513, 576, 1024, 300, 960, 1025, 1300};
  std::vector<Row> rows;
  for (size_t i = 0; i < lengths.size(); ++i) rows.push_back({static_cast<int>(i), lengths[i]});
  rows.insert(rows.end(), 3, Row{0, 0});
  for (const Shape& shape : Cases(kShapes)) {
    for (const Values& values : {Values{0.5f}, Values{2}, Values{6}, Values{1, 8, 1000}}) {
      World<TypeParam> world(shape, lengths, rows, values);
      world.CheckDecode("all rows");
      if (values.query_scale == 2) world.CheckAlone("each row");
      if (this->HasFatalFailure()) return;
      world.ExpectNoFaults(shape.Name());
    }
  }
}

// More work than thread blocks, with every length of a sequence.
TYPED_TEST(AttentionRecipeTest, DecodeAtManyPositionsOfOneSequence) {
  std::vector<Row> rows;
  for (int i = 0; i < (Sanitized() ? 150 : 600); ++i) rows.push_back({0, 1 + i * 997 % 1777});
  for (const Shape& shape : {Shape{32, 32, 128}, Shape{56, 8, 128}, Shape{4, 2, 64}}) {
    World<TypeParam> world(shape, {1777}, rows, {2});
    world.CheckDecode("one launch");
    world.CheckDecode("chained", true, 4);
    if (this->HasFatalFailure()) return;
  }
}

TYPED_TEST(AttentionRecipeTest, PrefillOfManyChunksIsTheRecipe) {
  struct Cut {
    int sequence, begin, rows;
  };
  const std::vector<int> tokens = {1777, 700, 64, 1};
  const std::vector<Cut> cuts = {{0, 0, 1},      {0, 1, 7},     {0, 500, 64}, {0, 1000, 100},
                                 {0, 1277, 500}, {1, 511, 2},   {1, 0, 500},  {2, 0, 64},
                                 {3, 0, 1},      {1, 512, 188}, {0, 63, 65}};
  std::vector<Row> rows;
  std::vector<PrefillChunk> chunks;
  for (const Cut& c : cuts) {
    rows.push_back({0, 0});  // In no chunk.
    chunks.push_back({static_cast<int32_t>(rows.size()), c.rows, c.begin,
                      static_cast<int32_t>(rows.size()) + c.rows - 1});
    for (int i = 0; i < c.rows; ++i) rows.push_back({c.sequence, c.begin + i + 1});
  }
  for (const Shape& shape : Cases(kShapes)) {
    for (const Values& values : {Values{0.5f}, Values{6}, Values{1, 8, 1000}}) {
      World<TypeParam> world(shape, tokens, rows, values);
      world.CheckPrefill(chunks, "all chunks");
      for (const PrefillChunk& chunk : chunks) world.CheckPrefill({chunk}, "one chunk");
      world.ExpectNoFaults(shape.Name());
      if (this->HasFatalFailure()) return;
    }
  }
}

TYPED_TEST(AttentionRecipeTest, NearFloat64) {
  using T = TypeParam;
  const std::vector<Row> rows = {{0, 1}, {0, 5}, {0, 64}, {0, 100}, {0, 600}};
  for (const Shape& shape : {Shape{4, 2, 64}, Shape{4, 4, 128}, Shape{14, 2, 128}}) {
    World<T> world(shape, {600}, rows);
    ExpectNear(world.want().Download(), world.Oracle(), 2 * HalfUlp<T>(), 4 * HalfUlp<T>(),
               shape.Name());
  }
}

// A block beyond the pool counts as zeros and sets a fault of its row only.
TYPED_TEST(AttentionRecipeTest, BadBlocksAreZerosAndFault) {
  for (const int32_t bad : {-1, -1000000, 0x7FFFFFFF}) {
    World<TypeParam> world({8, 2, 128}, {900}, {{0, 200}, {0, 900}, {0, 900}});
    world.SetEntry(1, 9, bad);
    world.CheckDecode("block " + std::to_string(bad));
    EXPECT_EQ(world.faults().Download(), (std::vector<int32_t>{0, kFaultBlockRange, 0})) << bad;
  }
}

}  // namespace
}  // namespace fathom::gpu_test
