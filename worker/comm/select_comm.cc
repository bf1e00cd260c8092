#include "worker/comm/select_comm.h"

namespace fathom::worker {
namespace {

constexpr int kPeerRanksMax = 8;

// The largest messages of each way. A one-shot moves (ranks - 1) times the message over each link
// with one meeting, a two-shot twice (ranks - 1) / ranks of it with two meetings. For two ranks
// that is the same, so one-shot is the fastest at every size (comm_bench on two H200: 5.4, 8.3
// and 32.5 us for 8 KiB, 1 MiB and 8 MiB; two-shot 9.6, 12.7 and 42.2; NCCL 9.7, 17.4 and 57.3).
// A push moves twice the message, but nothing is read over the link. Its limits, and the values for
// more ranks, are guesses.
struct Limits {
  int ranks;
  int64_t push_bytes;
  int64_t one_shot_bytes;
  int64_t two_shot_bytes;  // Beyond it NCCL, if the group has it.
};
constexpr int64_t kKiB = 1024;
constexpr Limits kLimits[] = {
    {2, 64 * kKiB, 262144 * kKiB, 262144 * kKiB},
    {3, 0, 0, 32768 * kKiB},
    {4, 64 * kKiB, 256 * kKiB, 32768 * kKiB},
    {5, 0, 0, 32768 * kKiB},
    {6, 0, 0, 32768 * kKiB},
    {7, 0, 0, 32768 * kKiB},
    {8, 32 * kKiB, 128 * kKiB, 32768 * kKiB},
};

}  // namespace

const char* NameOf(CommWay way) {
  switch (way) {
    case CommWay::kPush:
      return "push";
    case CommWay::kOneShot:
      return "one-shot";
    case CommWay::kTwoShot:
      return "two-shot";
    case CommWay::kNccl:
      return "NCCL";
  }
  return "unknown";
}

std::optional<CommWay> SelectComm(int ranks, int64_t bytes, const CommFacts& facts) {
  const bool peer = facts.peer && ranks >= 2 && ranks <= kPeerRanksMax;
  if (!peer) return facts.nccl ? std::optional(CommWay::kNccl) : std::nullopt;
  const Limits& limits = kLimits[ranks - 2];
  if (bytes <= limits.push_bytes) return CommWay::kPush;
  if (bytes <= limits.one_shot_bytes) return CommWay::kOneShot;
  if (bytes <= limits.two_shot_bytes || !facts.nccl) return CommWay::kTwoShot;
  return CommWay::kNccl;
}

}  // namespace fathom::worker
