#include "worker/comm/peer_handle.h"

#include <cstring>
#include <type_traits>

namespace fathom::worker {
namespace {

constexpr std::string_view kMagic = "FPEER002";  // With the version of this format.
constexpr size_t kBuildBytesMax = 200;

class Writer {
 public:
  template <class T>
  void Put(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(T));
  }
  void Put(std::string_view text) { bytes_.append(text); }
  std::string Take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}
  template <class T>
  bool Get(T* value) {
    static_assert(std::is_trivially_copyable_v<T>);
    if (rest_.size() < sizeof(T)) return false;
    std::memcpy(value, rest_.data(), sizeof(T));
    rest_.remove_prefix(sizeof(T));
    return true;
  }
  bool Get(std::string* text, size_t bytes) {
    if (rest_.size() < bytes) return false;
    text->assign(rest_.substr(0, bytes));
    rest_.remove_prefix(bytes);
    return true;
  }
  bool AtEnd() const { return rest_.empty(); }

 private:
  std::string_view rest_;
};

// What ranks with different values cannot do together; empty: nothing.
std::string Difference(const PeerHandle& theirs, const PeerHandle& own) {
  if (theirs.build != own.build) {
    return fmt::format("is of build {}, this rank of {}: start all ranks with the same program",
                       theirs.build, own.build);
  }
  if (theirs.dtype != own.dtype) {
    return fmt::format("computes in {}, this rank in {}: start all ranks with the same --dtype",
                       NameOf(theirs.dtype), NameOf(own.dtype));
  }
  const auto& a = theirs.sizes;
  const auto& b = own.sizes;
  if (a == b) return "";
  return fmt::format(
      "has a region for {} ranks, {} thread blocks, {} rows of {} bytes, {} bytes gathered, {} "
      "bytes of mail in {} places of {} senders, {} bytes exchanged, {} rows pushed; this rank for "
      "{}, {}, {} of {}, {}, {} in {} of {}, {}, {}: start all ranks with the same flags",
      a.ranks, a.blocks_max, a.rows_max, a.row_bytes_max, a.gather_bytes, a.mail_bytes,
      a.mail_places, a.mail_senders, a.exchange_bytes, a.push_rows, b.ranks, b.blocks_max,
      b.rows_max, b.row_bytes_max, b.gather_bytes, b.mail_bytes, b.mail_places, b.mail_senders,
      b.exchange_bytes, b.push_rows);
}

}  // namespace

std::string EncodePeerHandle(const PeerHandle& handle) {
  Writer out;
  out.Put(kMagic);
  out.Put(static_cast<int32_t>(handle.rank));
  out.Put(static_cast<uint8_t>(handle.dtype));
  out.Put(static_cast<int32_t>(handle.sizes.ranks));
  out.Put(static_cast<int32_t>(handle.sizes.blocks_max));
  out.Put(handle.sizes.rows_max);
  out.Put(handle.sizes.row_bytes_max);
  out.Put(handle.sizes.gather_bytes);
  out.Put(handle.sizes.mail_bytes);
  out.Put(handle.sizes.exchange_bytes);
  out.Put(static_cast<int32_t>(handle.sizes.mail_places));
  out.Put(static_cast<int32_t>(handle.sizes.mail_senders));
  out.Put(handle.sizes.push_rows);
  out.Put(handle.device);
  out.Put(handle.process);
  out.Put(handle.address);
  out.Put(handle.memory);
  const std::string_view build = std::string_view(handle.build).substr(0, kBuildBytesMax);
  out.Put(static_cast<uint8_t>(build.size()));
  out.Put(build);
  return out.Take();
}

absl::StatusOr<PeerHandle> DecodePeerHandle(std::string_view bytes) {
  if (bytes.substr(0, kMagic.size()) != kMagic) {
    return Invalid("the {} bytes are no handle of a peer region of this version", bytes.size());
  }
  Reader in(bytes.substr(kMagic.size()));
  PeerHandle handle;
  int32_t rank = 0, ranks = 0, blocks = 0, places = 0, senders = 0;
  uint8_t dtype = 0, build_bytes = 0;
  const bool complete = in.Get(&rank) && in.Get(&dtype) && in.Get(&ranks) && in.Get(&blocks) &&
                        in.Get(&handle.sizes.rows_max) && in.Get(&handle.sizes.row_bytes_max) &&
                        in.Get(&handle.sizes.gather_bytes) && in.Get(&handle.sizes.mail_bytes) &&
                        in.Get(&handle.sizes.exchange_bytes) && in.Get(&places) &&
                        in.Get(&senders) && in.Get(&handle.sizes.push_rows) &&
                        in.Get(&handle.device) && in.Get(&handle.process) &&
                        in.Get(&handle.address) && in.Get(&handle.memory) && in.Get(&build_bytes) &&
                        in.Get(&handle.build, build_bytes) && in.AtEnd();
  if (!complete) return Invalid("the handle of a peer region has a wrong length: {}", bytes.size());
  handle.rank = rank;
  handle.sizes.ranks = ranks;
  handle.sizes.blocks_max = blocks;
  handle.sizes.mail_places = places;
  handle.sizes.mail_senders = senders;
  handle.dtype = static_cast<kernels::DType>(dtype);
  if (handle.dtype != kernels::DType::kBf16 && handle.dtype != kernels::DType::kF16) {
    return Invalid("the handle of a peer region has an unknown element type: {}", dtype);
  }
  if (!IsValid(handle.sizes) || rank < 0 || rank >= ranks || build_bytes > kBuildBytesMax) {
    return Invalid("the handle of a peer region has sizes out of range (rank {} of {})", rank,
                   ranks);
  }
  return handle;
}

absl::StatusOr<std::vector<PeerHandle>> CheckPeerHandles(std::span<const std::string> all,
                                                         const PeerHandle& own) {
  if (all.size() != static_cast<size_t>(own.sizes.ranks)) {
    return Invalid("there are {} handles of peer regions for a group of {} ranks", all.size(),
                   own.sizes.ranks);
  }
  std::vector<PeerHandle> handles;
  for (size_t rank = 0; rank < all.size(); ++rank) {
    auto handle = DecodePeerHandle(all[rank]);
    if (!handle.ok()) return Annotate(handle.status(), fmt::format("rank {}", rank));
    if (const std::string text = Difference(*handle, own); !text.empty()) {
      return Invalid("rank {} {}", rank, text);
    }
    if (handle->rank != static_cast<int>(rank)) {
      return Invalid("rank {} sent the handle of rank {}", rank, handle->rank);
    }
    handles.push_back(*std::move(handle));
  }
  if (handles[own.rank] != own) {
    return Invalid("the handle of this rank, {}, came back changed", own.rank);
  }
  return handles;
}

}  // namespace fathom::worker
