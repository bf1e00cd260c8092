#include "cluster/worker_wire.h"

#include "worker.pb.h"

namespace fathom {

void ToWire(const StepTrace& from, worker::v1::StepTrace* to) {
  to->set_term(from.term.value);
  to->set_epoch(from.epoch.value);
  to->set_step(from.step.value);
  to->set_chunks(from.chunks);
  to->set_prompt_chunks(from.prompt_chunks);
  to->set_prompt_tokens(from.prompt_tokens);
  to->set_decode_rows(from.decode_rows);
  to->set_graph(from.graph);
  to->set_wait_from_us(from.wait_from_us);
  to->set_read_at_us(from.read_at_us);
  to->set_submit_from_us(from.submit_from_us);
  to->set_submit_end_us(from.submit_end_us);
  to->set_device_from_us(from.device_from_us);
  to->set_device_end_us(from.device_end_us);
  to->set_ready_at_us(from.ready_at_us);
  to->set_written_at_us(from.written_at_us);
}

StepTrace FromWire(const worker::v1::StepTrace& from) {
  StepTrace to;
  to.term = {from.term()};
  to.epoch = {from.epoch()};
  to.step = {from.step()};
  to.chunks = from.chunks();
  to.prompt_chunks = from.prompt_chunks();
  to.prompt_tokens = from.prompt_tokens();
  to.decode_rows = from.decode_rows();
  to.graph = from.graph();
  to.wait_from_us = from.wait_from_us();
  to.read_at_us = from.read_at_us();
  to.submit_from_us = from.submit_from_us();
  to.submit_end_us = from.submit_end_us();
  to.device_from_us = from.device_from_us();
  to.device_end_us = from.device_end_us();
  to.ready_at_us = from.ready_at_us();
  to.written_at_us = from.written_at_us();
  return to;
}

}  // namespace fathom
