// worker/comm/device_comm.h: the collectives of a group of GPU ranks, ordered by a stream. Every
// rank makes the same calls in the same order with the same sizes. Each call only enqueues, and may
// be captured into a graph, which is void with its comm. The header includes no CUDA header.
//
// All implementations make the same bits (docs/NUMERICS.md, "All-reduce"), so a group may choose
// between them by the size of a message (worker/comm/select_comm.h).
//
// Thread: one thread enqueues; any thread calls Abort, AsyncError, InWork and Began. A comm lives
// for one epoch. Errors: ABORTED after Abort, or after a peer or the library failed; what the
// stream computes after it is void, and every wait on the device ends. An error of the device
// itself ends the process (worker/cuda/cuda_check.h).
#pragma once

#include <cstdint>
#include <string>

#include "common/status.h"
#include "worker/comm/device_work.h"

struct CUstream_st;

namespace fathom::worker {

// Where to enqueue. `dependent`: the first kernel may start while the previous one of the stream
// still runs (kernels/cuda/base/launch.h).
struct CommStream {
  CUstream_st* stream = nullptr;
  bool dependent = false;
};

// The memory of the partial sums. Consecutive all-reduces use A and B in turn (attention A, MLP B);
// then one meeting of the ranks is enough for each (kernels/cuda/comm/all_reduce.h).
enum class PartialBuffer : uint8_t { kA, kB };

// An all-reduce of rows of `hidden` elements: sum = round(((r0 + r1) + r2) + ...) of the ranks'
// rounded partials; then x = round(x + sum); then y = RMSNorm(x) * weight. All pointers are device
// memory, aligned to 16 bytes; null: not wanted. REQUIRES: y needs x and weight.
struct ReduceRows {
  PartialBuffer buffer = PartialBuffer::kA;
  int rows = 0;
  void* sum = nullptr;            // [rows][hidden]
  void* x = nullptr;              // [rows][hidden], the residual.
  void* y = nullptr;              // [rows][hidden]
  const float* weight = nullptr;  // [hidden]
  float eps = 0;
};

class DeviceComm {
 public:
  virtual ~DeviceComm() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual const char* name() const = 0;  // For logs: "peer memory" or "NCCL".
  // Whether a kernel that follows a call may be launched as dependent.
  virtual bool chains() const = 0;

  // Where this rank writes its partial rows, [rows_max][hidden].
  virtual void* Partial(PartialBuffer buffer) const = 0;
  // REQUIRES: rows <= rows_max; another buffer than the previous call's.
  virtual absl::Status AllReduce(const CommStream& on, const ReduceRows& rows) = 0;

  // all = [size()][bytes], in rank order. REQUIRES for all three: bytes is a multiple of 4 and at
  // most the comm's limit; `mine` and `all` do not overlap.
  virtual absl::Status AllGather(const CommStream& on, const void* mine, void* all,
                                 int64_t bytes) = 0;
  // Each rank writes rows of row_bytes to Rows(); after ExchangeRows the next operations of the
  // stream may read row i of rank r at RowsOf(r) + i * row_bytes, if i % size() == rank(). So each
  // rank gets every size()-th row whole from slices that all ranks have of every row. Rows may be
  // written again after the next AllReduce or AllGather. REQUIRES: rows * row_bytes is at most the
  // comm's limit.
  virtual void* Rows() const = 0;
  virtual absl::Status ExchangeRows(const CommStream& on, int rows, int64_t row_bytes) = 0;
  virtual const void* RowsOf(int rank) const = 0;

  // A message to another rank, which receives the messages of a rank in the order of their sends.
  // Bytes: a multiple of 4, the same for a send and its receive. A send may wait on the device
  // until the receiver has begun to take this message, or an earlier one: so many messages may be
  // sent before the first of them is received.
  virtual int messages_ahead() const = 0;
  virtual absl::Status Send(const CommStream& on, int peer, const void* data, int64_t bytes) = 0;
  virtual absl::Status Recv(const CommStream& on, int peer, void* to, int64_t bytes) = 0;

  // Ends every wait of this rank, on the device too, and makes later calls return ABORTED.
  virtual void Abort() = 0;
  // OK, or why the comm is void.
  virtual absl::Status AsyncError() const = 0;
  // The operation that the device began last, for the message about a group that hangs.
  virtual std::string InWork() const = 0;
  // The same for heartbeats, without a word about it if the comm does not know. Any thread.
  virtual CommBegan Began() const { return {}; }
  // How long the device has waited for the other ranks in this comm, up to the call before the one
  // that it began last. 0 if the comm does not know. Any thread.
  virtual int64_t WaitedUs() const { return 0; }
  // The calls that were enqueued or captured so far. The thread that enqueues.
  virtual CommCounts Enqueued() const { return {}; }
};

}  // namespace fathom::worker
