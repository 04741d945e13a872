"""Specifications of NVIDIA GPUs, and their description for XLA's GPU compiler.

FLOP/s (dense, bfloat16 with float32 accumulation), bandwidth, NVLink and PCIe are from NVIDIA's datasheets
"H100 Tensor Core GPU", "H200 Tensor Core GPU", "A100 Tensor Core GPU" (all SXM) and "L40S". The datasheets
list FLOP/s with sparsity, which is twice the dense value, and bidirectional link bandwidth, which is twice
the bandwidth of one direction. GeForce values are from the whitepapers "NVIDIA Ada GPU Architecture" and
"NVIDIA Ampere GA102 GPU Architecture". Cores, caches and clocks only guide the compiler. Memory is about what
CUDA reports, which is slightly less than the nominal size. The network between hosts is assumed to have one
network card per GPU: 400 Gb/s for H100 and H200, 200 Gb/s for A100, 100 Gb/s for the others.
"""

import dataclasses

CONTEXT_BYTES = 0.75 * 2**30
"""Allowance for the CUDA context, cuBLAS, cuDNN and NCCL."""
FRAGMENTATION = 0.05
"""Allowance for fragmentation, as a fraction of the program's memory."""


@dataclasses.dataclass(frozen=True)
class Card:
    """Specifications of one GPU.

    name: the name that the driver reports.
    capability: compute capability.
    cores: streaming multiprocessors.
    clock_ghz: boost clock.
    peak_flops: peak bfloat16 FLOP/s.
    hbm_bytes, hbm_bandwidth: memory in bytes, and its bandwidth in bytes/s.
    l2_bytes, shared_bytes: second-level cache, and shared memory per core.
    ring_bandwidth: send bandwidth to cards in the same host, over NVLink or PCIe, in bytes/s.
    network_bandwidth: send bandwidth to other hosts, in bytes/s.
    per_host: number of cards in a host.
    """

    name: str
    capability: tuple[int, int]
    cores: int
    clock_ghz: float
    peak_flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    l2_bytes: int
    shared_bytes: int
    ring_bandwidth: float
    network_bandwidth: float
    per_host: int = 8

    def send_bandwidth(self, span: int) -> float:
        """Send bandwidth of one card in a ring that spans `span` consecutive cards, in bytes/s."""
        return self.ring_bandwidth if span <= self.per_host else self.network_bandwidth

    def reserved_bytes(self, program_bytes: float) -> float:
        """Memory that is not available to a program of `program_bytes` bytes, in bytes."""
        return CONTEXT_BYTES + FRAGMENTATION * program_bytes

    def target_config(self) -> str:
        """The card as a text proto of XLA's `GpuTargetConfigProto`."""
        major, minor = self.capability
        threads = 2048 if minor == 0 else 1536
        return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {self.shared_bytes}
  threads_per_core_limit: {threads}
  core_count: {self.cores}
  fpus_per_core: {64 if self.capability == (8, 0) else 128}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {self.hbm_bandwidth:.0f}
  l2_cache_size: {self.l2_bytes}
  clock_rate_ghz: {self.clock_ghz}
  device_memory_size: {self.hbm_bytes:.0f}
  shared_memory_per_block_optin: {self.shared_bytes - 1024}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{self.name}"
"""


GIB, MIB = 2**30, 2**20
CARDS = {
    "h100": Card(  # 1,979 TFLOPS with sparsity, 3.35 TB/s, NVLink 900 GB/s
        "NVIDIA H100 80GB HBM3",
        *((9, 0), 132, 1.98, 989e12, 79.1 * GIB, 3.35e12, 50 * MIB, 228 * 1024, 450e9, 50e9),
    ),
    "h200": Card(  # as H100, with 141 GB at 4.8 TB/s
        "NVIDIA H200", *((9, 0), 132, 1.98, 989e12, 139.8 * GIB, 4.8e12, 50 * MIB, 228 * 1024, 450e9, 50e9)
    ),
    "a100-80": Card(  # 312 TFLOPS (624 with sparsity), 2,039 GB/s, NVLink 600 GB/s
        "NVIDIA A100-SXM4-80GB",
        *((8, 0), 108, 1.41, 312e12, 79.1 * GIB, 2.039e12, 40 * MIB, 164 * 1024, 300e9, 25e9),
    ),
    "a100-40": Card(  # as A100 80 GB, with 1,555 GB/s; CUDA reports 42,405,855,232 bytes
        "NVIDIA A100-SXM4-40GB",
        *((8, 0), 108, 1.41, 312e12, 39.4 * GIB, 1.555e12, 40 * MIB, 164 * 1024, 300e9, 25e9),
    ),
    "l40s": Card(  # 362 TFLOPS (733 with sparsity), 864 GB/s, PCIe Gen4 x16 64 GB/s
        "NVIDIA L40S",
        *((8, 9), 142, 2.52, 362e12, 44.4 * GIB, 0.864e12, 96 * MIB, 100 * 1024, 32e9, 12.5e9),
    ),
    "rtx4090": Card(  # 165.2 TFLOPS (330.3 with sparsity), 1,008 GB/s, PCIe Gen4 x16
        "NVIDIA GeForce RTX 4090",
        *((8, 9), 128, 2.52, 165e12, 23.5 * GIB, 1.008e12, 72 * MIB, 100 * 1024, 32e9, 12.5e9),
    ),
    "rtx3090": Card(  # 71 TFLOPS: 82 cores x 4 units x 64 multiply-adds x 1.695 GHz; 936 GB/s, PCIe Gen4 x16
        "NVIDIA GeForce RTX 3090",
        *((8, 6), 82, 1.695, 71e12, 23.5 * GIB, 0.936e12, 6 * MIB, 100 * 1024, 32e9, 12.5e9),
    ),
}
"""Cards by name in --topology."""
