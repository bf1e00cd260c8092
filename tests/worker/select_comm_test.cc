#include "worker/comm/select_comm.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

#include "worker/comm/selected_comm.h"

namespace fathom::worker {
namespace {

constexpr CommFacts kPeer = {.peer = true, .nccl = false};
constexpr CommFacts kNccl = {.peer = false, .nccl = true};
constexpr CommFacts kBoth = {.peer = true, .nccl = true};

TEST(SelectComm, ASmallMessageIsSummedByEveryRank) {
  for (const int ranks : {2, 4, 8}) {
    EXPECT_EQ(SelectComm(ranks, 8192, kBoth), CommWay::kOneShot) << ranks;
    EXPECT_EQ(SelectComm(ranks, 64 * 1024, kPeer), CommWay::kOneShot) << ranks;
  }
  for (const int ranks : {3, 5, 6, 7}) {  // The one-shot kernel has no instance.
    EXPECT_EQ(SelectComm(ranks, 8192, kBoth), CommWay::kTwoShot) << ranks;
  }
}

TEST(SelectComm, TheWayOnlyGrowsWithTheSize) {
  for (int ranks = 2; ranks <= 8; ++ranks) {
    for (const CommFacts& facts : {kPeer, kNccl, kBoth}) {
      CommWay last = CommWay::kOneShot;
      for (int64_t bytes = 0; bytes <= int64_t{1} << 30; bytes = bytes * 2 + 16) {
        const auto way = SelectComm(ranks, bytes, facts);
        ASSERT_TRUE(way);
        EXPECT_GE(*way, last) << ranks << " ranks, " << bytes << " bytes";
        last = *way;
      }
      EXPECT_EQ(last, facts.nccl ? CommWay::kNccl : CommWay::kTwoShot);
    }
  }
}

TEST(SelectComm, OnlyWaysThatTheGroupHas) {
  for (const int64_t bytes : {0, 8192, 1 << 30}) {
    EXPECT_EQ(SelectComm(2, bytes, kNccl), CommWay::kNccl);
    EXPECT_EQ(SelectComm(16, bytes, kBoth), CommWay::kNccl);  // Peer memory is for 8 ranks.
    EXPECT_EQ(SelectComm(16, bytes, kPeer), std::nullopt);
    EXPECT_EQ(SelectComm(2, bytes, {}), std::nullopt);
    EXPECT_EQ(SelectComm(1, bytes, kPeer), std::nullopt);
  }
  EXPECT_STREQ(NameOf(CommWay::kOneShot), "one-shot");
}

// Writes down its calls.
class FakeComm final : public DeviceComm {
 public:
  FakeComm(std::string name, std::string* calls, int* partials)
      : name_(std::move(name)), calls_(calls), partials_(partials) {}
  int rank() const override { return 1; }
  int size() const override { return 4; }
  const char* name() const override { return name_.c_str(); }
  bool chains() const override { return false; }
  void* Partial(PartialBuffer buffer) const override {
    return partials_ + static_cast<int>(buffer);
  }
  absl::Status AllReduce(const CommStream&, const ReduceRows&) override { return Call("reduce"); }
  absl::Status AllGather(const CommStream&, const void*, void*, int64_t) override {
    return Call("gather");
  }
  void* Rows() const override { return partials_; }
  absl::Status ExchangeRows(const CommStream&, int, int64_t) override { return Call("exchange"); }
  const void* RowsOf(int) const override { return partials_; }
  absl::Status Send(const CommStream&, int, const void*, int64_t) override { return Call("send"); }
  absl::Status Recv(const CommStream&, int, void*, int64_t) override { return Call("recv"); }
  void Abort() override {
    Call("abort").IgnoreError();
    aborted_ = true;
  }
  absl::Status AsyncError() const override {
    return aborted_ ? Aborted("{} was aborted", name_) : absl::OkStatus();
  }
  std::string InWork() const override { return "nothing"; }

 private:
  absl::Status Call(const char* what) {
    *calls_ += name_ + " " + what + "\n";
    return AsyncError();
  }
  const std::string name_;
  std::string* const calls_;
  int* const partials_;
  bool aborted_ = false;
};

TEST(SelectedComm, EachAllReduceTakesItsWayAndAllElsePeerMemory) {
  std::string calls;
  int partials[2] = {};
  SelectedComm comm(std::make_unique<FakeComm>("peer", &calls, partials),
                    std::make_unique<FakeComm>("nccl", &calls, partials), 8192);
  EXPECT_EQ(comm.Partial(PartialBuffer::kB), partials + 1);
  EXPECT_TRUE(comm.AllReduce({}, {PartialBuffer::kA, 1}).ok());
  EXPECT_TRUE(comm.AllReduce({}, {PartialBuffer::kB, 1 << 20}).ok());
  EXPECT_TRUE(comm.AllGather({}, nullptr, nullptr, 4).ok());
  EXPECT_TRUE(comm.ExchangeRows({}, 1, 4).ok());
  EXPECT_TRUE(comm.Send({}, 0, nullptr, 4).ok());
  EXPECT_TRUE(comm.Recv({}, 0, nullptr, 4).ok());
  EXPECT_EQ(calls, "peer reduce\nnccl reduce\npeer gather\npeer exchange\npeer send\npeer recv\n");
  EXPECT_TRUE(comm.AsyncError().ok());
  calls.clear();
  comm.Abort();
  EXPECT_EQ(calls, "peer abort\nnccl abort\n");
  EXPECT_EQ(comm.AsyncError().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(comm.AllReduce({}, {PartialBuffer::kA, 1}).code(), absl::StatusCode::kAborted);
}

}  // namespace
}  // namespace fathom::worker
