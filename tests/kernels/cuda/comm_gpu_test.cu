// The all-reduce of several ranks on one device: each way against a slow kernel that spells out
// the ordered sum, and the slow norm; graphs; the end by the abort word.
#include <algorithm>

#include "kernels/cuda/base/canon.cuh"
#include "tests/kernels/cuda/comm_ranks.h"
#include "tests/kernels/cuda/reference.h"

namespace fathom::kernels::cuda {
namespace {

using gpu_test::CommRanks;
using gpu_test::CountDifferent;
using gpu_test::DeviceBuffer;
using gpu_test::DTypeOf;
using gpu_test::FillNormal;
using gpu_test::Finish;
using gpu_test::RandomNormal;
using gpu_test::Stream;

// 8 ranks have 192 thread blocks on the device; two of the largest kernel fit on a multiprocessor.
constexpr int kBlocks = 24;
constexpr float kEps = 1e-6f;

PeerRegionSizes SizesOf(int ranks, int rows, int width) {
  PeerRegionSizes sizes = {ranks, kBlocks, rows, int64_t{width} * 2, 4096, 4096};
  sizes.push_rows = std::min(rows, kBlocks);
  return sizes;
}

// --- The reference ---

template <class T>
struct Parts {
  const T* of[kCommRanksMax];
};
// One thread for each element: ((r0 + r1) + r2) + ... in fp32, rounded once.
template <class T>
__global__ void RankSumReference(Parts<T> parts, int ranks, T* sum, int64_t count) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  float s = Element<T>::Widen(parts.of[0][i]);
  for (int r = 1; r < ranks; ++r) s = __fadd_rn(s, Element<T>::Widen(parts.of[r][i]));
  sum[i] = Element<T>::Round(s);
}
template <class T>
void RefSum(const Parts<T>& parts, int ranks, T* sum, int64_t count) {
  RankSumReference<T>
      <<<static_cast<unsigned>((count + 255) / 256), 256, 0, Stream()>>>(parts, ranks, sum, count);
  EXPECT_CUDA(cudaGetLastError());
}

// --- One all-reduce ---

enum class Way { kPush, kOneShot, kTwoShot };
constexpr Way kWays[] = {Way::kPush, Way::kOneShot, Way::kTwoShot};

const char* NameOf(Way way) {
  return way == Way::kPush ? "push" : way == Way::kOneShot ? "one-shot" : "two-shot";
}

bool Takes(Way way, int rows, int width) {
  return way != Way::kPush || (rows <= kBlocks && width <= 8192);
}

void Reduce(CommRanks* ranks, Way way, const std::function<AllReduceArgs(int)>& args_of) {
  if (way == Way::kPush) {
    ranks->ForEach([&](int r) { return AllReducePush(ranks->context(r), args_of(r)); }, true);
    return;
  }
  if (way == Way::kOneShot) {
    ranks->ForEach([&](int r) { return AllReduceOneShot(ranks->context(r), args_of(r)); });
    return;
  }
  ranks->ForEach([&](int r) { return AllReduceTwoShotSum(ranks->context(r), args_of(r)); });
  ranks->ForEach([&](int r) { return AllReduceTwoShotFinish(ranks->context(r), args_of(r)); });
}

template <class T>
struct Outputs {
  Outputs(int64_t count) : sum(count), x(count), y(count) {}
  DeviceBuffer<T> sum, x, y;
};

// What a shape needs: the inputs, and the reference's results.
template <class T>
struct Shape {
  Shape(const CommRanks& ranks, int rows_, int width_)
      : rows(rows_),
        width(width_),
        count(int64_t{rows_} * width_),
        residual(count),
        weight(RandomNormal<float>(width_, 0.5f, 77, 1.0f)),
        want(count) {
    FillNormal(residual, 1.0f, 5);
    Parts<T> parts = {};
    for (int r = 0; r < ranks.size(); ++r) {
      for (int buffer = 0; buffer < 2; ++buffer) {
        FillNormal(ranks.partial<T>(r, buffer), count, 1.0f, 10 + r);
      }
      parts.of[r] = ranks.partial<T>(r, 0);
    }
    RefSum(parts, ranks.size(), want.sum.get(), count);
    EXPECT_CUDA(cudaMemcpyAsync(want.x.get(), residual.get(), residual.bytes(),
                                cudaMemcpyDeviceToDevice, Stream()));
    const RmsNormArgs norm = {DTypeOf<T>(), want.x.get(), want.sum.get(), weight.get(), nullptr,
                              want.y.get(), kEps,         rows,           width};
    EXPECT_CUDA(RefRmsNorm(Stream(), norm));
    Finish();
  }
  int rows, width;
  int64_t count;
  DeviceBuffer<T> residual;
  DeviceBuffer<float> weight;
  Outputs<T> want;
};

template <class T>
void CheckShape(CommRanks* ranks, const Shape<T>& shape, Way way, int buffer) {
  const std::string what = std::to_string(ranks->size()) + " ranks, rows " +
                           std::to_string(shape.rows) + ", width " + std::to_string(shape.width) +
                           ", " + NameOf(way);
  std::vector<std::unique_ptr<Outputs<T>>> got;
  for (int r = 0; r < ranks->size(); ++r) {
    got.push_back(std::make_unique<Outputs<T>>(shape.count));
    EXPECT_CUDA(cudaMemcpy(got[r]->x.get(), shape.residual.get(), shape.residual.bytes(),
                           cudaMemcpyDeviceToDevice));
  }
  EXPECT_CUDA(cudaDeviceSynchronize());
  Reduce(ranks, way, [&](int r) {
    AllReduceArgs args;
    args.group = ranks->group(r);
    args.buffer = buffer;
    args.dtype = DTypeOf<T>();
    args.rows = shape.rows, args.width = shape.width;
    args.sum = got[r]->sum.get(), args.x = got[r]->x.get(), args.y = got[r]->y.get();
    args.weight = shape.weight.get(), args.eps = kEps;
    return args;
  });
  ranks->Finish();
  // Ranks that take turns have what the ranks before them pushed, so only the last one has all.
  const int first = way == Way::kPush && gpu_test::Sanitized() ? ranks->size() - 1 : 0;
  for (int r = first; r < ranks->size(); ++r) {
    const std::string where = what + ", rank " + std::to_string(r);
    EXPECT_EQ(CountDifferent(got[r]->sum.get(), shape.want.sum.get(), shape.count), 0) << where;
    EXPECT_EQ(CountDifferent(got[r]->x.get(), shape.want.x.get(), shape.count), 0) << where;
    EXPECT_EQ(CountDifferent(got[r]->y.get(), shape.want.y.get(), shape.count), 0) << where;
  }
}

template <class T>
class CommTest : public testing::Test {};
TYPED_TEST_SUITE(CommTest, gpu_test::ElementTypes);

TYPED_TEST(CommTest, EachWayEqualsTheOrderedSumAndTheNorm) {
  for (const int size : {2, 4, 8}) {
    for (const int width : gpu_test::Cases({64, 1024, 1032, 2048, 4096, 5120, 7168, 8192, 8200})) {
      const int largest = gpu_test::Sanitized() ? 70 : 2100;
      CommRanks ranks(SizesOf(size, largest, width));
      int buffer = 0;
      for (const int rows : gpu_test::Cases({1, 2, 5, 16, 31, 64, 70, 513, 2100})) {
        if (rows > largest) continue;
        const Shape<TypeParam> shape(ranks, rows, width);
        for (const Way way : kWays) {
          if (!Takes(way, rows, width)) continue;
          CheckShape(&ranks, shape, way, buffer);
          buffer ^= 1;
        }
      }
    }
  }
}

TYPED_TEST(CommTest, TwoShotHasAnyNumberOfRanks) {
  for (const int size : gpu_test::Cases({3, 5, 6, 7})) {
    CommRanks ranks(SizesOf(size, 300, 4096));
    for (const int rows : {1, 4, 300}) {
      const Shape<TypeParam> shape(ranks, rows, 4096);
      CheckShape(&ranks, shape, Way::kTwoShot, rows % 2);
    }
  }
}

// The forms without a norm, and without a residual.
TYPED_TEST(CommTest, FormsLeaveOutWhatIsNotAsked) {
  using T = TypeParam;
  CommRanks ranks(SizesOf(2, 9, 1024));
  const Shape<T> shape(ranks, 9, 1024);
  int buffer = 0;
  for (const Way way : kWays) {
    if (way == Way::kPush && gpu_test::Sanitized()) continue;  // See CheckShape.
    for (const bool residual : {false, true}) {
      Outputs<T> got[2] = {Outputs<T>(shape.count), Outputs<T>(shape.count)};
      for (Outputs<T>& out : got) {
        EXPECT_CUDA(cudaMemcpy(out.x.get(), shape.residual.get(), shape.residual.bytes(),
                               cudaMemcpyDeviceToDevice));
      }
      EXPECT_CUDA(cudaDeviceSynchronize());
      Reduce(&ranks, way, [&](int r) {
        AllReduceArgs args;
        args.group = ranks.group(r);
        args.buffer = buffer;
        args.dtype = DTypeOf<T>();
        args.rows = 9, args.width = 1024;
        if (residual) args.x = got[r].x.get();
        if (!residual) args.sum = got[r].sum.get();
        return args;
      });
      buffer ^= 1;
      ranks.Finish();
      for (Outputs<T>& out : got) {
        const DeviceBuffer<T>& same = residual ? out.x : out.sum;
        const DeviceBuffer<T>& want = residual ? shape.want.x : shape.want.sum;
        EXPECT_EQ(CountDifferent(same.get(), want.get(), shape.count), 0) << residual;
      }
    }
  }
}

TYPED_TEST(CommTest, OrderedSumEqualsTheReference) {
  using T = TypeParam;
  constexpr int64_t kCount = 8 * 70001;
  for (const int ranks : {1, 2, 3, 8}) {
    std::vector<std::unique_ptr<DeviceBuffer<T>>> buffers;
    Parts<T> parts = {};
    OrderedSumArgs args;
    args.dtype = DTypeOf<T>();
    args.ranks = ranks, args.count = kCount;
    for (int r = 0; r < ranks; ++r) {
      buffers.push_back(std::make_unique<DeviceBuffer<T>>(kCount));
      FillNormal(*buffers[r], 3.0f, r);
      parts.of[r] = buffers[r]->get();
      args.parts[r] = buffers[r]->get();
    }
    DeviceBuffer<T> got(kCount), want(kCount);
    args.out = got.get();
    EXPECT_CUDA(OrderedSum(gpu_test::MakeContext(), args));
    RefSum(parts, ranks, want.get(), kCount);
    EXPECT_EQ(CountDifferent(got.get(), want.get(), kCount), 0) << ranks << " ranks";
  }
}

TYPED_TEST(CommTest, RefusesWhatItDoesNotDo) {
  AllReduceArgs args;
  args.group.ranks = 3, args.group.blocks_max = 4;
  args.dtype = DTypeOf<TypeParam>();
  args.rows = 1, args.width = 16;
  const LaunchContext context = gpu_test::MakeContext();
  EXPECT_EQ(AllReduceOneShot(context, args), cudaErrorInvalidValue);  // 3 ranks.
  EXPECT_EQ(AllReducePush(context, args), cudaErrorInvalidValue);
  args.group.ranks = 2;
  EXPECT_EQ(AllReducePush(context, args), cudaErrorInvalidValue);  // No inbox for the row.
  args.width = 12;
  EXPECT_EQ(AllReduceOneShot(context, args), cudaErrorInvalidValue);
  EXPECT_EQ(AllReduceTwoShotSum(context, args), cudaErrorInvalidValue);
  args.width = 16, args.dtype = DType::kF32;
  EXPECT_EQ(AllReduceTwoShotFinish(context, args), cudaErrorInvalidValue);
}

// --- Graphs ---

// A partial that differs in each replay.
template <class T>
__global__ void MakePartial(T* to, int64_t count, const uint32_t* step, uint32_t salt) {
  WaitForPrevious();
  LetNextStart();
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride) {
    uint32_t z = static_cast<uint32_t>(i) * 0x9E3779B9u + *step * 0x85EBCA6Bu + salt * 0xC2B2AE35u;
    z = (z ^ (z >> 15)) * 0x2C1B3C6Du;
    z ^= z >> 13;
    to[i] = Element<T>::Round(static_cast<float>(static_cast<int32_t>(z)) * 0x1p-31f);
  }
}
__global__ void NextStep(uint32_t* step) {
  WaitForPrevious();
  *step += 1;
}
template <class T>
cudaError_t LaunchPartial(const LaunchContext& context, T* to, int64_t count,
                          const DeviceBuffer<uint32_t>& step, uint32_t salt) {
  return Launch(context, dim3(8), dim3(256), 0, MakePartial<T>, to, count, step.get(), salt);
}

// A step of two all-reduces, whose partials are written into A and B in turn.
struct Replay {
  int size, rows, width;
  Way way;
  int replays;
  int64_t count() const { return int64_t{rows} * width; }
};
uint32_t SaltOf(int rank, int buffer) { return static_cast<uint32_t>(2 * rank + buffer); }

// The graph of a rank.
template <class T>
cudaGraphExec_t CaptureStep(const CommRanks& ranks, const Replay& replay, int r,
                            const Outputs<T>& out, const DeviceBuffer<float>& weight,
                            const DeviceBuffer<uint32_t>& step) {
  const LaunchContext context = ranks.context(r);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  EXPECT_CUDA(cudaStreamBeginCapture(context.stream, cudaStreamCaptureModeThreadLocal));
  for (int buffer = 0; buffer < 2; ++buffer) {
    EXPECT_CUDA(LaunchPartial(context, ranks.partial<T>(r, buffer), replay.count(), step,
                              SaltOf(r, buffer)));
    AllReduceArgs args = {ranks.group(r), buffer, DTypeOf<T>(), replay.rows, replay.width};
    args.x = out.x.get(), args.y = out.y.get(), args.weight = weight.get();
    args.eps = kEps;
    if (replay.way == Way::kPush) {
      EXPECT_CUDA(AllReducePush(context, args));
    } else if (replay.way == Way::kOneShot) {
      EXPECT_CUDA(AllReduceOneShot(context, args));
    } else {
      EXPECT_CUDA(AllReduceTwoShotSum(context, args));
      EXPECT_CUDA(AllReduceTwoShotFinish(context, args));
    }
  }
  EXPECT_CUDA(Launch(context, dim3(1), dim3(1), 0, NextStep, step.get()));
  EXPECT_CUDA(cudaStreamEndCapture(context.stream, &graph));
  EXPECT_CUDA(cudaGraphInstantiate(&exec, graph, 0));
  EXPECT_CUDA(cudaGraphDestroy(graph));
  EXPECT_CUDA(cudaGraphUpload(exec, context.stream));
  return exec;
}

template <class T>
void RefReplays(const Replay& replay, const Outputs<T>& want, const DeviceBuffer<float>& weight) {
  DeviceBuffer<uint32_t> step(1);
  step.Zero();
  DeviceBuffer<T> memory(replay.count() * replay.size);
  const LaunchContext plain = gpu_test::MakeContext();
  for (int i = 0; i < replay.replays; ++i) {
    for (int buffer = 0; buffer < 2; ++buffer) {
      Parts<T> parts = {};
      for (int r = 0; r < replay.size; ++r) {
        T* const part = memory.get() + r * replay.count();
        parts.of[r] = part;
        EXPECT_CUDA(LaunchPartial(plain, part, replay.count(), step, SaltOf(r, buffer)));
      }
      RefSum(parts, replay.size, want.sum.get(), replay.count());
      const RmsNormArgs norm = {DTypeOf<T>(), want.x.get(), want.sum.get(), weight.get(), nullptr,
                                want.y.get(), kEps,         replay.rows,    replay.width};
      EXPECT_CUDA(RefRmsNorm(Stream(), norm));
    }
    EXPECT_CUDA(Launch(plain, dim3(1), dim3(1), 0, NextStep, step.get()));
  }
  Finish();
}

// A rank that wrote A before every peer had read it would change a result, which all later ones
// contain.
template <class T>
void CheckReplays(const Replay& replay) {
  CommRanks ranks(SizesOf(replay.size, replay.rows, replay.width));
  const int64_t count = replay.count();
  const DeviceBuffer<float> weight(RandomNormal<float>(replay.width, 0.5f, 1, 1.0f));
  // The reference first: its kernels could not start while graphs wait for each other.
  Outputs<T> want(count);
  want.x.Zero();
  RefReplays(replay, want, weight);
  std::vector<std::unique_ptr<Outputs<T>>> got;
  std::vector<std::unique_ptr<DeviceBuffer<uint32_t>>> steps;
  std::vector<cudaGraphExec_t> graphs;
  for (int r = 0; r < replay.size; ++r) {
    got.push_back(std::make_unique<Outputs<T>>(count));
    got[r]->x.Zero();
    steps.push_back(std::make_unique<DeviceBuffer<uint32_t>>(1));
    steps[r]->Zero();
    graphs.push_back(CaptureStep(ranks, replay, r, *got[r], weight, *steps[r]));
  }
  EXPECT_CUDA(cudaDeviceSynchronize());
  for (int i = 0; i < replay.replays; ++i) {
    for (int r = 0; r < replay.size; ++r) ASSERT_CUDA(cudaGraphLaunch(graphs[r], ranks.stream(r)));
  }
  ranks.Finish();
  for (int r = 0; r < replay.size; ++r) {
    const std::string where = std::to_string(replay.size) + " ranks, " +
                              std::to_string(replay.rows) + " rows, rank " + std::to_string(r);
    EXPECT_EQ(CountDifferent(got[r]->x.get(), want.x.get(), count), 0) << where;
    EXPECT_EQ(CountDifferent(got[r]->y.get(), want.y.get(), count), 0) << where;
    EXPECT_CUDA(cudaGraphExecDestroy(graphs[r]));
  }
  const int meetings = replay.replays * (replay.way == Way::kTwoShot ? 4 : 2);
  EXPECT_EQ(ProgressNumber(ranks.Progress(0)), static_cast<uint32_t>(meetings));
  EXPECT_EQ(ranks.Header(0).meetings[0], static_cast<uint32_t>(meetings));
}

TYPED_TEST(CommTest, HundredsOfReplaysOfAGraph) {
  if (gpu_test::Sanitized()) GTEST_SKIP() << "the ranks of a graph cannot take turns";
  for (const int size : {2, 4, 8}) {
    CheckReplays<TypeParam>({size, 1, 4096, Way::kPush, 1000});
    CheckReplays<TypeParam>({size, 1, 7168, Way::kPush, 200});
    CheckReplays<TypeParam>({size, 24, 1024, Way::kPush, 200});
    CheckReplays<TypeParam>({size, 1, 4096, Way::kOneShot, 200});
    CheckReplays<TypeParam>({size, 37, 1024, Way::kOneShot, 200});
    CheckReplays<TypeParam>({size, 37, 1024, Way::kTwoShot, 200});
    CheckReplays<TypeParam>({size, 200, 4096, Way::kTwoShot, 50});
  }
}

// --- Abort ---

TYPED_TEST(CommTest, AnAbortEndsTheWaitForARankThatNeverArrives) {
  using T = TypeParam;
  constexpr int kRows = 40, kWidth = 1024;
  CommRanks ranks(SizesOf(4, kRows, kWidth));
  DeviceBuffer<T> sums(int64_t{3} * kRows * kWidth);
  const auto args_of = [&](int r, int buffer) {
    AllReduceArgs args = {ranks.group(r), buffer, DTypeOf<T>(), kRows, kWidth};
    args.sum = sums.get() + int64_t{r} * kRows * kWidth;
    return args;
  };
  if (gpu_test::Sanitized()) {  // A launch may wait for its end.
    for (int r = 0; r < 3; ++r) ranks.Abort(r);
  }
  for (int r = 0; r < 3; ++r) {
    EXPECT_CUDA(AllReduceOneShot(ranks.context(r), args_of(r, 0)));
    EXPECT_CUDA(AllReduceTwoShotSum(ranks.context(r), args_of(r, 1)));
    EXPECT_CUDA(AllReduceTwoShotFinish(ranks.context(r), args_of(r, 1)));
    EXPECT_CUDA(PeerGather(ranks.context(r), {ranks.group(r), sums.get(), sums.get() + 64, 64}));
    PeerMessageArgs message = {ranks.group(r), 3, sums.get(), sums.get() + 64, 64};
    EXPECT_CUDA(PeerRecv(ranks.context(r), message));
    EXPECT_CUDA(PeerSend(ranks.context(r), message));
  }
  if (!gpu_test::Sanitized()) {
    // Each rank has begun the meeting and hangs in it.
    for (int r = 0; r < 3; ++r) {
      EXPECT_TRUE(gpu_test::Eventually([&] { return ranks.Progress(r) != 0; }));
      EXPECT_EQ(ProgressOp(ranks.Progress(r)), CommOp::kOneShot);
      EXPECT_EQ(ProgressNumber(ranks.Progress(r)), 1u);
      EXPECT_EQ(cudaStreamQuery(ranks.stream(r)), cudaErrorNotReady);
    }
    for (int r = 0; r < 3; ++r) ranks.Abort(r);
  }
  for (int r = 0; r < 3; ++r) {
    ASSERT_TRUE(ranks.Ends(r)) << "rank " << r << " still waits";
    EXPECT_EQ(ranks.Header(r).aborted, 1u);
    EXPECT_EQ(ranks.Header(r).meetings[0], 0u);
  }
  // Later kernels return at once, and write nothing.
  sums.Poison();
  EXPECT_CUDA(AllReduceOneShot(ranks.context(0), args_of(0, 0)));
  ASSERT_TRUE(ranks.Ends(0));
  const std::vector<T> after = sums.Download();
  EXPECT_TRUE(std::all_of(after.begin(), after.end(),
                          [](T x) { return std::isnan(gpu_test::ToFloat(x)); }));
}

TYPED_TEST(CommTest, AnAbortEndsTheWaitForRowsThatAreNeverPushed) {
  using T = TypeParam;
  CommRanks ranks(SizesOf(2, 4, 1024));
  DeviceBuffer<T> sums(4 * 1024);
  AllReduceArgs args = {ranks.group(0), 0, DTypeOf<T>(), 4, 1024};
  args.sum = sums.get();
  if (gpu_test::Sanitized()) ranks.Abort(0);  // A launch may wait for its end.
  EXPECT_CUDA(AllReducePush(ranks.context(0), args));
  if (!gpu_test::Sanitized()) {
    EXPECT_TRUE(gpu_test::Eventually([&] { return ranks.Progress(0) != 0; }));
    EXPECT_EQ(ProgressOp(ranks.Progress(0)), CommOp::kPush);
    EXPECT_EQ(cudaStreamQuery(ranks.stream(0)), cudaErrorNotReady);
    ranks.Abort(0);
  }
  ASSERT_TRUE(ranks.Ends(0)) << "rank 0 still waits";
  EXPECT_EQ(ranks.Header(0).aborted, 1u);
  args.buffer = 1;
  EXPECT_CUDA(AllReducePush(ranks.context(0), args));
  ASSERT_TRUE(ranks.Ends(0)) << "a later kernel waits";
}

}  // namespace
}  // namespace fathom::kernels::cuda
