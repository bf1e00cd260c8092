// worker/comm/select_comm.h: which way an all-reduce takes. All ways make the same bits, so the
// choice is one of speed alone; it depends only on what is equal on all ranks. Pure.
#pragma once

#include <cstdint>
#include <optional>

namespace fathom::worker {

enum class CommWay : uint8_t {
  kPush,     // Peer memory: every rank writes its rows to all others.
  kOneShot,  // Peer memory: every rank reads and sums all rows.
  kTwoShot,  // Peer memory: every rank sums its share, then reads the shares.
  kNccl,
};
const char* NameOf(CommWay way);

// What the group has. Every rank has it, or none.
struct CommFacts {
  bool peer = false;  // Peer memory.
  bool nccl = false;
};

// The way of a message of `bytes` bytes (rows * hidden * 2) between `ranks` ranks. nullopt: no way,
// because the group has neither, or peer memory alone and more than 8 ranks.
std::optional<CommWay> SelectComm(int ranks, int64_t bytes, const CommFacts& facts);

}  // namespace fathom::worker
