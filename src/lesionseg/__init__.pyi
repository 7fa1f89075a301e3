from lesionseg.inference.settings import Settings as Settings
from lesionseg.predict.model import Model as Model
from lesionseg.predict.model import load as load
