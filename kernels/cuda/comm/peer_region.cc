#include "kernels/cuda/comm/peer_region.h"

#include <algorithm>
#include <bit>

namespace fathom::kernels::cuda {
namespace {

constexpr int64_t kOffsetStep = 256;
constexpr int64_t kRegionBytesMax = int64_t{1} << 40;
constexpr int64_t kRowsMax = int64_t{1} << 24;

int64_t Aligned(int64_t bytes) { return (bytes + kOffsetStep - 1) / kOffsetStep * kOffsetStep; }

}  // namespace

const char* NameOf(CommOp op) {
  switch (op) {
    case CommOp::kNone:
      return "nothing";
    case CommOp::kPush:
      return "pushed all-reduce";
    case CommOp::kOneShot:
      return "one-shot all-reduce";
    case CommOp::kTwoShotSum:
      return "two-shot all-reduce, sums";
    case CommOp::kTwoShotFinish:
      return "two-shot all-reduce, results";
    case CommOp::kGather:
      return "all-gather";
    case CommOp::kSend:
      return "send";
    case CommOp::kRecv:
      return "receive";
    case CommOp::kExchange:
      return "exchange of rows";
  }
  return "unknown operation";
}

PeerRegionLayout LayoutOf(const PeerRegionSizes& sizes) {
  PeerRegionLayout layout;
  int64_t at = Aligned(sizeof(PeerRegionHeader));
  const auto take = [&](int64_t bytes) {
    const int64_t begin = at;
    at += Aligned(bytes);
    return begin;
  };
  for (int64_t& partial : layout.partials) partial = take(sizes.rows_max * sizes.row_bytes_max);
  layout.inbox_stride = Aligned(sizes.push_rows * sizes.row_bytes_max * 2);
  for (int64_t& inbox : layout.inboxes) inbox = take(sizes.ranks * layout.inbox_stride);
  layout.sums = take((sizes.rows_max + sizes.ranks - 1) / sizes.ranks * sizes.row_bytes_max);
  for (int64_t& gather : layout.gathers) gather = take(sizes.gather_bytes);
  layout.mail_stride = Aligned(sizes.mail_bytes);
  layout.mail_places = sizes.mail_places;
  layout.mail_senders = std::min(sizes.mail_senders, sizes.ranks - 1);
  layout.mail = take(int64_t{layout.mail_senders} * layout.mail_places * layout.mail_stride);
  layout.exchange = take(sizes.exchange_bytes);
  layout.bytes = at;
  return layout;
}

bool IsValid(const PeerRegionSizes& sizes) {
  const auto within = [](int64_t value, int64_t low, int64_t high) {
    return value >= low && value <= high;
  };
  return within(sizes.ranks, 2, kCommRanksMax) && within(sizes.blocks_max, 1, kCommBlocksMax) &&
         within(sizes.rows_max, 0, kRowsMax) &&
         within(sizes.row_bytes_max, 0, kRegionBytesMax / kRowsMax) &&
         within(sizes.push_rows, 0, sizes.rows_max) && sizes.row_bytes_max % 16 == 0 &&
         within(sizes.gather_bytes, 0, kRegionBytesMax / 64) &&
         within(sizes.mail_bytes, 0, kRegionBytesMax / 64) &&
         within(sizes.exchange_bytes, 0, kRegionBytesMax / 64) &&
         within(sizes.mail_places, 1, kMailPlacesMax) &&
         std::has_single_bit(static_cast<unsigned>(sizes.mail_places)) &&
         within(sizes.mail_senders, 1, kCommRanksMax) && LayoutOf(sizes).bytes < kRegionBytesMax;
}

}  // namespace fathom::kernels::cuda
