"""Thirty questions that users of fastai, Lightning and Keras ask, in their words, and where the answer is.

Chosen from public threads; the last column names the kind of place (a repository's thread
by its number where there is one). An answer is a page with a heading of it or a name in the reference, or a whole page.
"""

QUESTIONS = [
    ("How do I resume fit_one_cycle from a checkpoint after my computer crashed?",
     "how_to#go-on-with-a-run-that-was-cut-off promises#a-run-that-is-cut-off-goes-on", "fastai 2836, 3653"),
    ("Does early stopping keep the best model? How can I save the best weights?",
     "how_to#save-the-best-model how_to#stop-early", "Keras, questions on EarlyStopping and ModelCheckpoint"),
    ("How to freeze some layers for a couple of epochs and then unfreeze them in one run?",
     "how_to#unfreeze-in-the-middle-of-a-run "
     "how_to#freeze-and-unfreeze-layers-with-a-learning-rate-for-each-part", "Lightning 954"),
    ("Different learning rates for different layers",
     "how_to#freeze-and-unfreeze-layers-with-a-learning-rate-for-each-part", "Lightning 2005"),
    ("Fine-tune a pretrained resnet with a new head",
     "how_to#fine-tune-a-pretrained-network", "Lightning 514"),
    ("loss is nan during training, how can I find out why",
     "how_to#the-loss-is-nan promises#what-fails-says-why", "Keras 2627, 6921"),
    ("how does gradient accumulation work and what is the effective batch size",
     "how_to#gradient-accumulation-batches-that-do-not-fit-into-memory", "Lightning 5652"),
    ("CUDA out of memory, what can I do?",
     "how_to#gradient-accumulation-batches-that-do-not-fit-into-memory", "fastai, many"),
    ("How can I update the learning rate scheduler on every step instead of every epoch?",
     "how_to#use-a-scheduler-of-pytorch", "Lightning 5584, 5631"),
    ("use OneCycleLR from pytorch",
     "how_to#use-a-scheduler-of-pytorch schedules", "Lightning 1120, 6948"),
    ("which learning rate should I choose from the lr_find plot",
     "finder how_to#choose-a-learning-rate", "Lightning 11077, 1767"),
    ("Training results are not reproducible even with a fixed seed",
     "how_to#reproducible-results-seeds", "fastai 2832, 2206"),
    ("How do I get predictions on the test set?",
     "how_to#predict-for-a-test-set-for-new-files-for-a-single-sample", "fastai forums"),
    ("predict a single image",
     "how_to#predict-for-a-test-set-for-new-files-for-a-single-sample", "fastai forums"),
    ("load a model trained on GPU on a machine with cpu only",
     "how_to#save-and-load-a-model", "fastai 252, 1502"),
    ("how to use a plain pytorch DataLoader with the Learner",
     "how_to#use-your-own-dataloader-or-dataset", "fastai 3324"),
    ("model with multiple inputs, dictionary from the generator",
     "how_to#several-inputs-or-batches-that-are-dicts", "Keras 2568, 12767"),
    ("class weights for an imbalanced dataset",
     "how_to#imbalanced-classes-and-class-weights", "Keras 3068, 2115"),
    ("custom loss function with additional arguments",
     "how_to#a-custom-loss-function", "Keras, questions on losses"),
    ("compute f1 score over the whole validation set each epoch",
     "how_to#a-custom-metric-f1-and-the-like", "Keras, Lightning 2346"),
    ("How can I see the history of the loss and plot the loss curves?",
     "how_to#plot-the-history-and-log-to-csv-or-tensorboard", "Lightning, questions on logging"),
    ("log metrics to a csv file or tensorboard",
     "how_to#plot-the-history-and-log-to-csv-or-tensorboard all_callbacks#logging", "Lightning 1803"),
    ("how to train on multiple GPUs, and are metrics correct with ddp?",
     "how_to#several-gpus-or-processes distributed", "Lightning 2109, 3023"),
    ("mixed precision training fp16",
     "how_to#mixed-precision", "fastai, Lightning"),
    ("clip gradients by norm",
     "how_to#clip-gradients", "Keras, Lightning"),
    ("write a custom callback that does something at the end of each epoch",
     "callbacks#write-a-callback how_to#do-something-at-a-certain-moment start", "Keras, questions on callbacks"),
    ("GAN with two optimizers, custom training loop",
     "how_to#a-loop-of-your-own", "Lightning"),
    ("how to plot a confusion matrix and the top losses",
     "how_to#a-confusion-matrix-and-where-the-model-is-wrong", "fastai forums"),
    ("stop the progress bar, train silently without output",
     "how_to#silent-no-progress-bar-no-output", "Keras, fastai"),
    ("my GPU utilisation is low, what is slow, where is the time going? profiling",
     "how_to#see-where-the-time-goes", "Lightning, fastai"),
]

# A second set, asked when pages and ranking stood for the first: 7 of its 12 were answered then. What was missing was
# mended (names are cut into their words, long tables into sections, a section on augmentation).
MORE_QUESTIONS = [
    ("what is the difference between ReduceLROnPlateau and a cosine schedule",
     "schedules all_callbacks#early-stopping-the-best-model-a-plateau-watching-a-column "
     "reference/schedules nbs/02_schedules", "Keras"),
    ("how do I use warmup before cosine annealing",
     "schedules reference/schedules#minifast.schedules.warm_up nbs/02_schedules", "Lightning"),
    ("label smoothing",
     "all_callbacks#regularisation-mixup-averages-of-weights-label-smoothing "
     "reference/metrics#minifast.losses.LabelSmoothingCrossEntropy", "fastai"),
    ("how to use mixup",
     "all_callbacks#regularisation-mixup-averages-of-weights-label-smoothing nbs/04_callbacks#mixup "
     "reference/callbacks#minifast.callbacks.mixup.MixUpCallback "
     "reference/training#minifast.learner.Learner.mixup", "fastai"),
    ("exponential moving average of the weights",
     "all_callbacks#regularisation-mixup-averages-of-weights-label-smoothing "
     "reference/callbacks#minifast.callbacks.averaging.EMA", "Lightning"),
    ("how do I split the data into training and validation set from a folder of images",
     "data#pictures-in-folders-tables-or-lists "
     "reference/pictures#minifast.vision.data.ImageDataBunch.from_folder "
     "reference/pictures#minifast.vision.data.ImageDataBunch", "fastai"),
    ("data augmentation transforms for images",
     "how_to#data-augmentation data#pictures-in-folders-tables-or-lists "
     "reference/pictures#minifast.vision.transform.get_transforms fastai_v1#from-v1-s-name-to-ours", "fastai"),
    ("what does ctrl-c do, keyboard interrupt during training",
     "how_to#stop-early promises#what-fails-says-why all_callbacks#safety-nan-ctrl-c-checkpoints "
     "reference/callbacks#minifast.callbacks.interruption.Interruption", "Lightning"),
    ("how to continue training for more epochs",
     "how_to#go-on-with-a-run-that-was-cut-off nbs/05_resume_and_failures#cut-off-and-continued", "Keras"),
    ("torch.compile support",
     "how_to#see-where-the-time-goes all_callbacks#who-takes-the-learner-and-how-to-undo "
     "reference/training#minifast.learner.Learner.compile", "Lightning"),
    ("how to use Adam with weight decay or SGD",
     "how_to#use-another-optimizer fastai_v1#kept", "fastai"),
    ("print a model summary with output shapes",
     "how_to#see-what-the-model-is reference/training#minifast.learner.Learner.summary", "Keras"),
]
