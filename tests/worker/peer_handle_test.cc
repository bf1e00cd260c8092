#include "worker/comm/peer_handle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>
#include <string>
#include <vector>

namespace fathom::worker {
namespace {

using ::testing::HasSubstr;

PeerHandle HandleOf(int rank) {
  PeerHandle handle;
  handle.build = "0.2.0+abc";
  handle.rank = rank;
  handle.sizes = {3, 64, 100, 8192, 4096, 65536, 131072, 2, 8, 32};
  handle.process = 0x0123456789ABCDEFu + static_cast<uint64_t>(rank);
  handle.address = 0x7F0000000000u;
  for (size_t i = 0; i < handle.memory.size(); ++i) handle.memory[i] = static_cast<uint8_t>(i);
  handle.device.fill(static_cast<uint8_t>(rank));
  return handle;
}

std::vector<std::string> Encoded() {
  std::vector<std::string> all;
  for (int rank = 0; rank < 3; ++rank) all.push_back(EncodePeerHandle(HandleOf(rank)));
  return all;
}

std::string Refusal(const std::vector<std::string>& all, const PeerHandle& own) {
  const auto handles = CheckPeerHandles(all, own);
  if (handles.ok()) return "";
  EXPECT_EQ(handles.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(Message(handles.status()));
}

TEST(PeerHandle, ComesBackAsItWas) {
  const auto decoded = DecodePeerHandle(EncodePeerHandle(HandleOf(1)));
  ASSERT_TRUE(decoded.ok()) << ToString(decoded.status());
  EXPECT_EQ(*decoded, HandleOf(1));
  const auto all = CheckPeerHandles(Encoded(), HandleOf(2));
  ASSERT_TRUE(all.ok()) << ToString(all.status());
  for (int rank = 0; rank < 3; ++rank) EXPECT_EQ((*all)[rank], HandleOf(rank));
}

TEST(PeerHandle, EveryOtherLengthIsRefused) {
  const std::string good = EncodePeerHandle(HandleOf(0));
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(DecodePeerHandle(good.substr(0, size)).ok()) << size;
  }
  EXPECT_FALSE(DecodePeerHandle(good + "x").ok());
  EXPECT_FALSE(DecodePeerHandle(std::string(100'000, 'F')).ok());
}

// A changed byte gives an error or valid sizes, never more.
TEST(PeerHandle, RandomBytesDoNoHarm) {
  const char* text = std::getenv("FATHOM_SEED");
  const uint64_t seed = text != nullptr ? std::strtoull(text, nullptr, 10) : 20261130;
  std::printf("FATHOM_SEED=%llu\n", static_cast<unsigned long long>(seed));
  std::mt19937_64 generator(seed);
  const std::string good = EncodePeerHandle(HandleOf(0));
  for (int i = 0; i < 20'000; ++i) {
    std::string bytes = good;
    for (int change = 0; change < 1 + i % 4; ++change) {
      bytes[generator() % bytes.size()] = static_cast<char>(generator());
    }
    const auto handle = DecodePeerHandle(bytes);
    if (!handle.ok()) continue;
    EXPECT_TRUE(IsValid(handle->sizes));
    EXPECT_GE(handle->rank, 0);
    EXPECT_LT(handle->rank, handle->sizes.ranks);
  }
}

TEST(PeerHandle, TheRankThatDiffersIsNamed) {
  const auto with = [](int rank, auto change) {
    std::vector<std::string> all = Encoded();
    PeerHandle handle = HandleOf(rank);
    change(handle);
    all[rank] = EncodePeerHandle(handle);
    return all;
  };
  const PeerHandle own = HandleOf(0);
  EXPECT_THAT(Refusal(with(2, [](auto& h) { h.build = "0.1.9+def"; }), own),
              HasSubstr("rank 2 is of build 0.1.9+def, this rank of 0.2.0+abc"));
  EXPECT_THAT(Refusal(with(1, [](auto& h) { h.dtype = kernels::DType::kF16; }), own),
              HasSubstr("rank 1 computes in float16, this rank in bfloat16"));
  EXPECT_THAT(Refusal(with(1, [](auto& h) { h.sizes.rows_max = 70; }), own),
              HasSubstr("rank 1 has a region for 3 ranks, 64 thread blocks, 70 rows"));
  EXPECT_THAT(Refusal(with(2, [](auto& h) { h.rank = 1; }), own),
              HasSubstr("rank 2 sent the handle of rank 1"));
  EXPECT_THAT(Refusal(with(0, [](auto& h) { h.address += 1; }), own),
              HasSubstr("the handle of this rank, 0, came back changed"));
  std::vector<std::string> all = Encoded();
  all[1] = "nonsense";
  EXPECT_THAT(Refusal(all, own), HasSubstr("rank 1: the 8 bytes are no handle"));
  all.pop_back();
  EXPECT_THAT(Refusal(all, own), HasSubstr("2 handles of peer regions for a group of 3 ranks"));
}

}  // namespace
}  // namespace fathom::worker
