"""WGAN-GP. I. Gulrajani, F. Ahmed, M. Arjovsky, V. Dumoulin, A. Courville, Improved Training of Wasserstein GANs, 2017,
arXiv 1704.00028. Five critic steps, then one of G, which is skipped in the first round; penalty weight 10.

Settings are those of the authors' scripts gan_cifar_resnet.py, gan_cifar.py, gan_mnist.py and gan_64x64.py, the first without its
classes (its auxiliary classifier is another paper's).

Departures:
- The authors sample with the batch's statistics; we sample with batch norm's running averages.
- Two-process details of the CIFAR-10 script (each half of a batch on its own GPU, with its own statistics) are left out.
- lsun: the authors train on 64x64 ImageNet; bedrooms are the paper's other 64x64 set.
- mnist: all 60,000 training images are used; the authors kept 10,000 for validation.
- cifar10-small: ResNets of width {G} and {D}, batch 32, two critic steps at twice G's rate (Heusel et al. 2017, arXiv 1706.08500,
  train WGAN-GP with one), for two CPU cores.
- fashion-mnist, mnist-small: the MNIST networks at a quarter of the width, twice the learning rate.
- Reduced settings: what is sampled is an average of G's weights over time.
"""
