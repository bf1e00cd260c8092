// Implements what a stage of a pipeline sends and receives within a step
// (worker/cuda/cuda_decoder.h). A message of rows is the residual of each row after the last layer
// of a stage, and behind all rows their fault words.
#include "kernels/cuda/rows/non_finite.h"
#include "kernels/cuda/sampler/slot_samples.h"
#include "modeling/layout/cuda_step_buffers.h"
#include "worker/cuda/cuda_decoder_step.h"

namespace fathom::worker {

namespace cuda = kernels::cuda;

void CudaDecoder::ReceiveRows(Step& step) {
  const NvtxRange range("receive rows");
  const int rows = step.shape.rows;
  Communicate(step, *rows_comm_, [&](const CommStream& on) {
    return rows_comm_->Recv(on, model_.place.stage - 1, buffers_.x,
                            StageRowsBytes(rows, model_.hidden));
  });
  const std::byte* const behind = buffers_.x + rows * int64_t{model_.hidden} * kCudaElementBytes;
  Launch(cuda::TakeFaults(step.context, {.copies = reinterpret_cast<const int32_t*>(behind),
                                         .faults = step.faults,
                                         .count = rows}),
         "TakeFaults");
  step.context.dependent = parts_.dependent_launch;
  if (!parts_.diagnose) return;
  Launch(cuda::CheckRows(step.context, {.dtype = parts_.weights->dtype,
                                        .x = buffers_.x,
                                        .code = -1 - model_.layers.front().index,
                                        .first_code = buffers_.diagnosis,
                                        .rows = rows,
                                        .width = model_.hidden}),
         "CheckRows");
}

// A row with a non-finite value has a fault from here on, because keys and values of its sequence
// in this stage may be non-finite too.
void CudaDecoder::SendRows(Step& step) {
  const NvtxRange range("send rows");
  const int rows = step.shape.rows;
  Launch(cuda::CheckRows(step.context, {.dtype = parts_.weights->dtype,
                                        .x = buffers_.x,
                                        .code = 1,
                                        .faults = step.faults,
                                        .rows = rows,
                                        .width = model_.hidden}),
         "CheckRows");
  step.context.dependent = parts_.dependent_launch;
  std::byte* const behind = buffers_.x + rows * int64_t{model_.hidden} * kCudaElementBytes;
  Launch(cuda::StageFaults(step.context, {.rows = step.samples,
                                          .faults = step.faults,
                                          .slot_faults = buffers_.slot_faults,
                                          .out = buffers_.step_outputs,
                                          .copies = reinterpret_cast<int32_t*>(behind),
                                          .count = step.shape.samples,
                                          .faults_count = rows}),
         "StageFaults");
  Communicate(step, *rows_comm_, [&](const CommStream& on) {
    return rows_comm_->Send(on, model_.place.stage + 1, buffers_.x,
                            StageRowsBytes(rows, model_.hidden));
  });
}

void CudaDecoder::SendSamples(Step& step) {
  const NvtxRange range("send samples");
  const int count = step.shape.samples;
  Launch(cuda::PackSamples(step.context, {.rows = step.samples,
                                          .outs = buffers_.step_outputs,
                                          .samples = buffers_.slot_samples,
                                          .count = count}),
         "PackSamples");
  step.context.dependent = parts_.dependent_launch;
  Communicate(step, *samples_comm_, [&](const CommStream& on) {
    return samples_comm_->Send(on, 0, buffers_.slot_samples,
                               count * int64_t{sizeof(cuda::SlotSample)});
  });
}

}  // namespace fathom::worker
