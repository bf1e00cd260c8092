// kernels/cuda/comm/peer_region.h: the memory by which the kernels of several ranks talk. Each rank
// has a region: device memory that every rank of the group maps (kernels/cuda/comm/peer_barrier.cuh
// has the protocol). All ranks make their regions with the same sizes, so that an offset means the
// same everywhere. Pure: no CUDA.
//
// A region begins with a PeerRegionHeader of zeros. A comm is the life of the regions of its ranks:
// after an abort all of them are dropped, and a new comm has new ones.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fathom::kernels::cuda {

inline constexpr int kCommRanksMax = 8;
inline constexpr int kCommBlocksMax = 128;  // Thread blocks of a kernel that meets the peers.
inline constexpr int kMessageBlocks = 16;   // Thread blocks of every gather, send and receive.
inline constexpr int kMailPlacesMax = 16;

// What a kernel does while it waits; part of the progress word.
enum class CommOp : uint8_t {
  kNone,
  kPush,
  kOneShot,
  kTwoShotSum,
  kTwoShotFinish,
  kGather,
  kSend,
  kRecv,
  kExchange,
};
// For logs, e.g. "one-shot all-reduce".
const char* NameOf(CommOp op);

// Host memory that the device maps. The host writes `abort`, the kernels write the rest.
struct alignas(16) CommHostWords {
  uint32_t abort = 0;  // Not 0: every wait of a kernel ends.
  uint32_t reserved[3] = {};
  // The last operation that the first thread block of a kernel began: its CommOp in the upper 32
  // bits, and below them the number of the meeting, or of the message between the two ranks.
  uint64_t progress = 0;
  // How long the first thread blocks of all kernels before that one waited for peers.
  uint64_t waited_ns = 0;
};
static_assert(offsetof(CommHostWords, progress) % 16 == 0 &&
              offsetof(CommHostWords, waited_ns) == offsetof(CommHostWords, progress) + 8);
inline CommOp ProgressOp(uint64_t progress) { return static_cast<CommOp>(progress >> 32); }
inline uint32_t ProgressNumber(uint64_t progress) { return static_cast<uint32_t>(progress); }

// Numbers grow by one and wrap around; a wait compares by the sign of the difference.
struct PeerRegionHeader {
  // Written by the peers: [thread block][the peer].
  uint32_t met[kCommBlocksMax][kCommRanksMax];
  uint32_t mail_sent[kMessageBlocks][kCommRanksMax];   // By the sender, to the receiver's region.
  uint32_t mail_taken[kMessageBlocks][kCommRanksMax];  // By the receiver, to the sender's region.
  // Written by the rank's own kernels. A replayed graph has constant arguments, therefore each
  // thread block counts in memory.
  uint32_t meetings[kCommBlocksMax];
  uint32_t gathers[kMessageBlocks];
  uint32_t sent[kMessageBlocks][kCommRanksMax];
  uint32_t received[kMessageBlocks][kCommRanksMax];
  uint32_t aborted;    // Not 0: a wait of this rank was ended by `abort`.
  uint64_t waited_ns;  // As in CommHostWords, the last kernel included.
};

// Equal on all ranks.
struct PeerRegionSizes {
  int ranks = 0;               // 2 to 8.
  int blocks_max = 0;          // Thread blocks of an all-reduce, 1 to kCommBlocksMax. All thread
                               // blocks of a kernel must fit on the device at once.
  int64_t rows_max = 0;        // Rows of an all-reduce.
  int64_t row_bytes_max = 0;   // Bytes of such a row, a multiple of 16.
  int64_t gather_bytes = 0;    // Of one rank in an all-gather.
  int64_t mail_bytes = 0;      // Of one message.
  int64_t exchange_bytes = 0;  // Of the rows that a rank writes for an exchange.
  // The messages of a sender that may be sent and not taken: 1, 2, 4, 8 or 16.
  int mail_places = 2;
  // The ranks that send to a rank: so many before it, in a circle; at least all others: any.
  int mail_senders = kCommRanksMax;
  int64_t push_rows = 0;  // Rows of an all-reduce that is pushed, at most rows_max.
  bool operator==(const PeerRegionSizes&) const = default;
};

// Offsets in bytes, each a multiple of 256.
struct PeerRegionLayout {
  int64_t partials[2] = {};  // The buffers A and B.
  // For a push, of buffer A and B: [sender] lines, `inbox_stride` bytes apart. Zeros at first.
  int64_t inboxes[2] = {};
  int64_t inbox_stride = 0;
  int64_t sums = 0;         // This rank's share of a two-shot all-reduce.
  int64_t gathers[2] = {};  // Used in turn.
  int64_t mail = 0;         // [MailSender][mail_places] messages, `mail_stride` apart.
  int64_t mail_stride = 0;
  int mail_places = 0;
  int mail_senders = 0;
  int64_t exchange = 0;  // This rank's rows of an exchange.
  int64_t bytes = 0;     // Of the whole region.
};
// REQUIRES: IsValid(sizes).
PeerRegionLayout LayoutOf(const PeerRegionSizes& sizes);
// Whether each size is in its range (and the whole region below 2^40 bytes).
bool IsValid(const PeerRegionSizes& sizes);

// The index of rank `sender` among those that send to `receiver`: 0 is the rank before it, and the
// rank before rank 0 is the last one.
constexpr int MailSender(int sender, int receiver, int ranks) {
  return (receiver - sender - 1 + ranks) % ranks;
}

// A group as one of its ranks sees it: an argument of its kernels.
struct PeerGroup {
  std::byte* regions[kCommRanksMax] = {};  // In this process's address space; [rank] is its own.
  CommHostWords* host = nullptr;           // The device's address of this rank's words.
  PeerRegionLayout layout;
  int rank = 0;
  int ranks = 0;
  int blocks_max = 0;
};

// The rows that rank `rank` sums in a two-shot all-reduce: equal shares, the last ones shorter or
// empty.
struct RowShare {
  int first = 0;
  int rows = 0;
};
constexpr int RowsPerRank(int rows, int ranks) { return (rows + ranks - 1) / ranks; }
constexpr RowShare ShareOf(int rows, int ranks, int rank) {
  const int per_rank = RowsPerRank(rows, ranks);
  const int first = per_rank * rank < rows ? per_rank * rank : rows;
  return {first, rows - first < per_rank ? rows - first : per_rank};
}

}  // namespace fathom::kernels::cuda
